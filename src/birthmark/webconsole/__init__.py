"""Web console: pages rendered on the server."""
