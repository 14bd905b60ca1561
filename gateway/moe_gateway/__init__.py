"""The gateway: sends each request to the Expert of a pool that answers it best."""
