"""Pure decision rules of the CA."""
