"""Objects: GET, LIST and WATCH, and what a request for them asks."""
