"""What EST does (`operations`), and whose passwords and CAs introduce devices (`credentials`)."""

from birthmark.est.service.credentials import Credentials
from birthmark.est.service.operations import EstService

__all__ = ["Credentials", "EstService"]
