"""Forwarding: requests for one member cluster that its own API server answers."""
