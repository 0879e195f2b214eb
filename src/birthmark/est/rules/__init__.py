"""Pure decisions of EST."""
