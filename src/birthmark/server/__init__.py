"""Server: settings, the data directory, and one process that runs every service on its ports."""
