"""What happens here, told to programs: CloudEvents, one catalogue, by a stream and by webhooks.

The source is the audit trail, which every change is in with its commit: nothing is written twice for it, nothing can
be told that was not kept, and a place in it is a number for each worker's chain. Who was cut off goes on where he was.
"""
