"""The server: settings, the data directory, and one process that serves every room on its ports."""
