"""Authorization: what a request is (`attributes.py`), and who decides about it."""
