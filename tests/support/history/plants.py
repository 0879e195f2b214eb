"""Ways to falsify a history, each of which a check has to find."""
PLANTS={}
