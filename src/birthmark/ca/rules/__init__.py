"""Pure decisions of the CA."""
