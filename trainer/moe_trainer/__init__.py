"""Snapshots, trains, evaluates, distils and serves Experts. Knows torch, never Kubernetes."""
