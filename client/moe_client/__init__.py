"""What runs on the user's machine: `moectl` and, later, the Python SDK. It knows the API and nothing else."""
