"""Pure decision rules of the broker."""
