"""Clusters: several nodes that act as one server, their names, and the files that they share."""
