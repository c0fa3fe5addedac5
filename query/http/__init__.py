"""HTTP: the application, connections, and the forms of requests and answers."""
