"""The audit chain read back: every mutation in order, and whether it is the one that was written and signed."""
