"""Pure decisions of a swarm: schedule, next actions, and expected results."""
