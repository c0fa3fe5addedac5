"""Authentication: from a request's certificate, headers and tokens to who asks."""
