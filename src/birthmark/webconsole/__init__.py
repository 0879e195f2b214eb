"""The web console: pages drawn on the server."""
