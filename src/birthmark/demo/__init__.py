"""Eleven demo scenarios, each with its own server and simulated secure element, using the commands of a user.

A scenario is a function over a `Stage`: it narrates, runs commands as subprocesses and records the results. The
programs in `apps` are examples that use only the vendors' SDKs.
"""
