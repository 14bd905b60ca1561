"""What runs on the user's machine: the command line `moectl`. It knows the API
and, for `moectl local` and `moectl demo`, the small cluster.
"""
