"""A small Kubernetes cluster of ordinary processes on this machine, for `moectl local`, the demo and tests."""
