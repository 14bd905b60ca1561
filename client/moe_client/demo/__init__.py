"""The demo: from `kubectl apply` to routed answers, on this machine, live."""
