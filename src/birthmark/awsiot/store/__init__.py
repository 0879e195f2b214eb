"""Tables and statements of AWS IoT Core.

A principal is stored as the certificate ID; ARNs are built at the API layer. Policy versions are immutable.
"""

from birthmark.awsiot.store import (
    authorizers_and_role_aliases,
    certificates_and_access_keys,
    index_queries,
    jobs,
    policies,
    provisioning,
    registry,
    shadows,
    tags,
    topic_rules_and_streams,
)

__all__ = [
    "authorizers_and_role_aliases",
    "certificates_and_access_keys",
    "index_queries",
    "jobs",
    "policies",
    "provisioning",
    "registry",
    "shadows",
    "tags",
    "topic_rules_and_streams",
]
