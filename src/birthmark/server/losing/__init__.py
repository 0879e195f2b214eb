"""A device that is lost: everything by which its name comes in at this server, and how it is taken back.

`rooms` finds it, room by room; `service` takes it back, looks again, and says what it took and what is left.
"""
