"""What the room keeps: tables, and the statements over them.

A principal is written as the certificate's id; ARNs are made at the edge. Policy versions are never changed.
"""

from birthmark.awsiot.store import (
    certificates,
    credentials,
    index_queries,
    jobs,
    policies,
    provisioning,
    registry,
    shadows,
    tags,
    topic_rules,
)

__all__ = [
    "certificates",
    "credentials",
    "index_queries",
    "jobs",
    "policies",
    "provisioning",
    "registry",
    "shadows",
    "tags",
    "topic_rules",
]
