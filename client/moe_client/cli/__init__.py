"""The command line `moectl`: one file per command, or for the commands about one kind of object."""
