"""The eleven journeys, each on a server and a software secure element of its own, by the commands a user would type.

A journey is a function over a `Stage`: it narrates, runs commands as subprocesses, and records what was proven. The
programs in `apps` are examples that use nothing but the vendors' SDKs.
"""
