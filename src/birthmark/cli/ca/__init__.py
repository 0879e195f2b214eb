"""`birthmark ca`: an operator's own certificate authority in a directory.

The directory holds the hierarchy (`birthmark.ca.directory`) and the inventory of what it issued (`inventory.db`).
"""

from birthmark.cli.ca import hierarchy, issuing, offline, revoking, rollover
from birthmark.cli.ca.common import app

__all__ = ["app", "hierarchy", "issuing", "offline", "revoking", "rollover"]

app.add_typer(rollover.app, name="rollover")
