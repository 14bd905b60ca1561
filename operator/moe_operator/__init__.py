"""The operator: keeps Experts and ExpertPools as their specs say. Knows Kubernetes, never torch."""
