"""DPS's decisions, pure."""
