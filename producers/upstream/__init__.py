"""How to speak to a member cluster: credentials, requests, discovery."""
