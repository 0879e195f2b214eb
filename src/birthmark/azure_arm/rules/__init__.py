"""Parsing of requests."""
