"""Pure decisions: from what was seen to what is wrong and what to type."""
