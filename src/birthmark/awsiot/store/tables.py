"""The room's tables.

A principal is written as the certificate's id; ARNs are made at the edge. Policy versions are never changed.
"""

from sqlalchemy import BigInteger, Column, Index, LargeBinary, Table, Text

from birthmark.store import metadata
from birthmark.store.schema import RowId

access_keys = Table(
    "aws_access_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("secret", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

registration_codes = Table(
    "aws_registration_codes",
    metadata,
    Column("account", Text, primary_key=True),
    Column("code", Text, nullable=False),
)

things = Table(
    "aws_things",
    metadata,
    Column("name", Text, primary_key=True),
    Column("thing_id", Text, nullable=False),
    Column("type_name", Text),
    Column("attributes", Text, nullable=False),
    Column("billing_group", Text),
    Column("version", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

thing_types = Table(
    "aws_thing_types",
    metadata,
    Column("name", Text, primary_key=True),
    Column("type_id", Text, nullable=False),
    Column("properties", Text, nullable=False),
    Column("deprecated_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
)

certificates = Table(
    "aws_certificates",
    metadata,
    Column("id", Text, primary_key=True),
    Column("der", LargeBinary, nullable=False),
    Column("status", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("ca_id", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("modified_at", BigInteger, nullable=False),
    Column("customer_version", BigInteger, nullable=False),
    Column("generation_id", Text, nullable=False),
)
Index("aws_certificates_created", certificates.c.created_at, certificates.c.id)
Index("aws_certificates_ca", certificates.c.ca_id, certificates.c.created_at, certificates.c.id)

cas = Table(
    "aws_cas",
    metadata,
    Column("id", Text, primary_key=True),
    Column("der", LargeBinary, nullable=False),
    Column("subject", LargeBinary, nullable=False),
    Column("active", BigInteger, nullable=False),
    Column("mode", Text, nullable=False),
    Column("auto_registration", BigInteger, nullable=False),
    Column("registration", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("modified_at", BigInteger, nullable=False),
    Column("customer_version", BigInteger, nullable=False),
    Column("generation_id", Text, nullable=False),
)
Index("aws_cas_subject", cas.c.subject)

policies = Table(
    "aws_policies",
    metadata,
    Column("name", Text, primary_key=True),
    Column("default_version", BigInteger, nullable=False),
    Column("last_version", BigInteger, nullable=False),
    Column("generation_id", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("modified_at", BigInteger, nullable=False),
)

policy_versions = Table(
    "aws_policy_versions",
    metadata,
    Column("policy", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("document", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

policy_targets = Table(
    "aws_policy_targets",
    metadata,
    Column("policy", Text, primary_key=True),
    Column("certificate_id", Text, primary_key=True),
)
Index("aws_policy_targets_certificate", policy_targets.c.certificate_id, policy_targets.c.policy)

thing_principals = Table(
    "aws_thing_principals",
    metadata,
    Column("thing", Text, primary_key=True),
    Column("certificate_id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
)
Index("aws_thing_principals_certificate", thing_principals.c.certificate_id, thing_principals.c.thing)

sessions = Table(
    "aws_sessions",
    metadata,
    Column("client_id", Text, primary_key=True),
    # NULL while the client is connected.
    Column("expires_at", BigInteger),
)

subscriptions = Table(
    "aws_subscriptions",
    metadata,
    Column("client_id", Text, primary_key=True),
    Column("filter", Text, primary_key=True),
    Column("qos", BigInteger, nullable=False),
)

queued = Table(
    "aws_queued",
    metadata,
    Column("seq", RowId, primary_key=True, autoincrement=True),
    Column("client_id", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)
Index("aws_queued_client", queued.c.client_id, queued.c.seq)
