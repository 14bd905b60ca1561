"""What runs on the user's machine: `moectl`, which knows the API and, for some commands, the small cluster."""
