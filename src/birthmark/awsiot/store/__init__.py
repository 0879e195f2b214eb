"""What the room keeps: `tables`, and the statements over them in `registry`, `certificates`, `policies`, `sessions`."""

from birthmark.awsiot.store import tables

__all__ = ["tables"]
