"""The pure decisions of the broker."""
