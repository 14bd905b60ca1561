"""`moectl`: one file a command."""
