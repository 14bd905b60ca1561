"""The custom resources: spec and status models per kind, conditions, reasons, labels.

``crds/`` is generated from these models (``make generate``). No Kubernetes client is needed to use them.
"""
