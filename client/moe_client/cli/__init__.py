"""The command line `moectl`: one file per command."""
