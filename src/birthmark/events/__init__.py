"""Event stream of this server for programs: CloudEvents with one catalog, by a stream and by webhooks.

The source is the audit log, which contains every change in its own commit. Events need no second write, and no event
exists without a stored row. A position is a number per worker's chain. A client continues at its position after an
interruption.
"""
