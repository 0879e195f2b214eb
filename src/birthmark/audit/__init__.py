"""Audit log readers: all changes in order, with verification of chain and signatures."""
