"""The gateway: sends a request to the Expert of a pool that answers it best."""
