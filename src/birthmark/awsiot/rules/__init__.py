"""AWS IoT's decisions, pure."""
