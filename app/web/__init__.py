"""HTTP: the routes, their schemas, and everything else that knows of requests."""
