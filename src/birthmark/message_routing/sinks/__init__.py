"""Sinks: each delivers messages of one kind to their address."""
