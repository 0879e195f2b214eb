"""What EST does (`operations`), and whose passwords and CAs introduce devices (`users`)."""

from birthmark.est.service.operations import EstService

__all__ = ["EstService"]
