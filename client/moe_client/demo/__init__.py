"""The demo: the main job from `kubectl apply` to routed answers, on this machine, live."""
