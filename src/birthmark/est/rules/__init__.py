"""Pure decision rules of EST."""
