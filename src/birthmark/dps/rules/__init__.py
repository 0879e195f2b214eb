"""Pure decision rules of DPS."""
