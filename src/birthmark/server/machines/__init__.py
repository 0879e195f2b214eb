"""Clusters: several machines that serve as one, their names, and the files that they share."""
