"""`birthmark server`: the server as a service."""

from birthmark.cli.install import app

__all__ = ["app"]
