"""What the room announces; the broker listens."""

ACCESS_CHANGED = "awsiot.access_changed"
"""Bodies name what changed: `policy`, `certificate_id` or `thing`. Who depends on it looks again."""

CERTIFICATE_CHANGED = "awsiot.certificate_changed"
"""`certificate_id` and its new `status`; a deleted one has the status DELETED."""
