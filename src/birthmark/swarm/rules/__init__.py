"""Pure decisions of a swarm: when, what next, and whether it went as it should."""
