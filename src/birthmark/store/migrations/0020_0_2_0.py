"""What version 0.2.0 changed: names and keys, sessions of every cloud, telemetry as streams, EST, TPM, thing groups."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _held_names()
    _groups_and_cas()
    _outbox_per_worker()
    _heads_of_others()
    _sessions()
    _workers()
    _shadows()
    _stream()
    _est_doors()
    _lists_cover()
    _rollover()
    _inventory()
    _registered()
    _tpm()
    _thing_groups()
    _lost_names()
    _revoked_cas()
    _fetched_requests()
    _many_of_a_name()


def _held_names() -> None:
    """Who holds a name and a key, who made a registration and a device, signed heads of the audit chain."""
    op.add_column("ca_certificates", sa.Column("name", sa.Text(), server_default="", nullable=False))
    op.add_column("ca_certificates", sa.Column("holds_name", sa.BigInteger(), server_default="1", nullable=False))
    op.execute(f"UPDATE ca_certificates SET name = {_held_names_folded('device_id')}")  # noqa: S608 - a column of ours
    op.create_index("ca_certificates_name", "ca_certificates", ["name", "not_after"], unique=False)
    op.create_table(
        "ca_names",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "ca_keys",
        sa.Column("key_digest", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.Column("revocation_reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("key_digest"),
    )
    op.create_index("ca_keys_name", "ca_keys", ["name"], unique=False)
    # Of a key that two names have (an earlier version let both in when they asked at once) the first name stays.
    op.execute(
        "INSERT INTO ca_keys (key_digest, name, revoked_at, revocation_reason)"
        " SELECT key_digest, MIN(name), MAX(CASE WHEN revocation_reason = 'superseded' THEN NULL ELSE revoked_at END),"
        " MAX(CASE WHEN revocation_reason = 'superseded' THEN NULL ELSE revocation_reason END)"
        " FROM ca_certificates GROUP BY key_digest"
    )
    op.add_column("est_users", sa.Column("nonce", sa.LargeBinary(), nullable=True))
    op.add_column("dps_registrations", sa.Column("common_name", sa.Text(), nullable=True))
    op.add_column("hub_devices", sa.Column("maker", sa.Text(), server_default="operator", nullable=False))
    op.execute(
        "UPDATE hub_devices SET maker = COALESCE((SELECT 'dps:' || r.scope || '/' || r.registration_id"
        " FROM dps_registrations r JOIN hubs h ON lower(h.host) = lower(r.hub)"
        " WHERE h.name = hub_devices.hub AND r.device_id = hub_devices.device_id"
        " ORDER BY r.updated_at DESC LIMIT 1), 'operator')"
    )
    op.create_table(
        "audit_heads",
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("chain"),
    )
    op.create_table(
        "server_facts",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )


def _held_names_folded(column: str) -> str:
    """ASCII letters in lower case on both engines: lower() knows only them on SQLite, and more on PostgreSQL."""
    if op.get_context().dialect.name == "sqlite":
        return f"lower({column})"
    return f"translate({column}, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', 'abcdefghijklmnopqrstuvwxyz')"


def _groups_and_cas() -> None:
    """Which making of its group a registration belongs to; the CAs that were taken back, whoever certified them."""
    op.add_column("dps_registrations", sa.Column("group_made", sa.Text(), nullable=True))
    op.create_table(
        "ca_revoked_cas",
        sa.Column("key_digest", sa.LargeBinary(), nullable=False),
        sa.Column("der", sa.LargeBinary(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key_digest"),
    )


def _outbox_per_worker() -> None:
    """One outbox for each worker, numbered by its one committer.

    What waits in the old one is dropped: its events close or recheck connections, and let caches read again. A server
    that starts has no connections, and its caches read from the tables.
    """
    op.drop_table("outbox")
    op.create_table(
        "outbox",
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("worker", "seq"),
        sqlite_with_rowid=False,
    )


def _heads_of_others() -> None:
    """What a signed head tells of the ends of other chains; nothing in those that earlier versions signed."""
    op.add_column("audit_heads", sa.Column("others", sa.Text(), nullable=True))


def _sessions() -> None:
    """One set of tables for the sessions of every cloud; what the clouds kept for themselves moves there.

    A stored session of AWS becomes one of the space `aws`; its messages keep their order. What a hub's device
    subscribed to becomes a session of the space `hub/NAME`. Shapes of filters are filled in at the next start.
    """
    op.create_table(
        "sessions",
        sa.Column("space", sa.Text(), nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("expiry_s", "tail", "cursor", "sent")),
        sa.Column("will", sa.LargeBinary(), nullable=True),
        sa.Column("will_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("space", "client"),
        sqlite_with_rowid=False,
    )
    for column in ("expires_at", "will_at", "owner"):
        there = sa.text(f"{column} IS NOT NULL")
        op.create_index(f"sessions_{column}", "sessions", [column], sqlite_where=there, postgresql_where=there)
    op.create_table(
        "subscriptions",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("space", "filter", "client", "share", "shape")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("qos", "options")),
        sa.PrimaryKeyConstraint("space", "filter", "client", "share"),
        sqlite_with_rowid=False,
    )
    op.create_index("subscriptions_client", "subscriptions", ["space", "client"])
    op.create_table(
        "queue",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("space", "client")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("last", "count", "at")),
        sa.Column("message", sa.BigInteger(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("space", "client", "last"),
    )
    shared = sa.text("message IS NOT NULL")
    op.create_index("queue_message", "queue", ["message"], sqlite_where=shared, postgresql_where=shared)
    op.create_table(
        "messages",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "retained",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("space", "topic")),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("qos", "size")),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("space", "topic"),
    )
    op.create_table(
        "inbox",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("space", "client")),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("enqueued_at", "expires_at", "deliveries")),
        sa.Column("lock", sa.Text(), nullable=True),
        sa.Column("locked_until", sa.BigInteger(), nullable=True),
        sa.Column("feedback", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("space", "client", "seq"),
    )
    op.create_index("inbox_expires_at", "inbox", ["expires_at"])
    op.create_table(
        "hub_twins",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("hub", "device_id")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("version", "updated_at")),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("hub", "device_id"),
    )
    _sessions_move()


def _sessions_move() -> None:
    """An owner that is no worker is one that was killed: its sessions begin to expire at the next start."""
    op.execute(
        "INSERT INTO sessions (space, client, epoch, owner, expires_at, expiry_s, tail, cursor, sent) "
        "SELECT 'aws', client_id, 1, CASE WHEN expires_at IS NULL THEN '0.1.0' END, expires_at, "
        "3600, 0, 0, 0 FROM aws_sessions"
    )
    op.execute(
        "INSERT INTO subscriptions (space, filter, client, share, shape, qos, options) "
        "SELECT 'aws', filter, client_id, '', '', qos, 0 FROM aws_subscriptions"
    )
    op.execute(
        "INSERT INTO sessions (space, client, epoch, expiry_s, tail, cursor, sent) "
        "SELECT DISTINCT 'hub/' || hub, device_id, 1, 4294967295, 0, 0, 0 FROM hub_subscriptions"
    )
    op.execute(
        "INSERT INTO subscriptions (space, filter, client, share, shape, qos, options) "
        "SELECT 'hub/' || hub, filter, device_id, '', '', qos, 0 FROM hub_subscriptions"
    )
    for table in ("aws_sessions", "aws_subscriptions", "hub_subscriptions"):
        op.drop_table(table)


def _workers() -> None:
    """Who lives: the workers that share a database."""
    op.create_table(
        "workers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )


def _shadows() -> None:
    """AWS IoT's device shadows; one that was deleted stays for its version."""
    op.create_table(
        "aws_shadows",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("thing", "name")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("version", "at", "revision")),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("thing", "name"),
    )
    deleted = sa.text("deleted_at IS NOT NULL")
    op.create_index(
        "aws_shadows_deleted_at", "aws_shadows", ["deleted_at"], sqlite_where=deleted, postgresql_where=deleted
    )


def _stream() -> None:
    """Telemetry becomes a stream of its hub: what was kept moves there, all of it into the first partition."""
    op.create_table(
        "segments",
        sa.Column("stream", sa.Text(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("seq", "partition", "at", "count", "upto")),
        sa.Column("names", sa.LargeBinary(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("stream", "seq", "partition"),
    )
    named = sa.text("names IS NOT NULL")
    columns = ["stream", "partition", "seq"]
    op.create_index("segments_names", "segments", columns, sqlite_where=named, postgresql_where=named)
    op.create_table(
        "positions",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("stream", "grp")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("partition", "position")),
        sa.PrimaryKeyConstraint("stream", "grp", "partition"),
    )
    op.execute(
        "INSERT INTO segments (stream, seq, partition, at, count, upto, body) "
        "SELECT 'hub/' || hub, seq, 0, at, count, sum(length(body)) OVER (PARTITION BY hub ORDER BY seq), body "
        "FROM hub_segments"
    )
    op.drop_table("hub_segments")


def _est_doors() -> None:
    """EST: tokens, registration authorities, requests that wait; the certificate by which one was asked for."""
    op.add_column("est_users", sa.Column("expires_at", sa.BigInteger(), nullable=True))
    op.add_column("est_users", sa.Column("is_one_time", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("est_users", sa.Column("used_by", sa.LargeBinary(), nullable=True))
    op.add_column("ca_certificates", sa.Column("parent", sa.LargeBinary(), nullable=True))
    op.create_table(
        "est_authorities",
        sa.Column("thumbprint", sa.LargeBinary(), nullable=False),
        sa.Column("der", sa.LargeBinary(), nullable=False),
        sa.Column("names", sa.Text(), nullable=False),
        sa.Column("added_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("thumbprint"),
    )
    op.create_table(
        "est_requests",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("id", "name", "actor", "profile", "address")),
        sa.Column("csr", sa.LargeBinary(), nullable=False),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.Column("decided_at", sa.BigInteger(), nullable=True),
        sa.Column("is_approved", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("est_requests_name", "est_requests", ["name"], unique=False)
    op.create_index("est_requests_asked_at", "est_requests", ["asked_at"], unique=False)


def _lists_cover() -> None:
    """A revocation list knows how many revocations it covers: what was revoked while it was made is on the next."""
    for name in ("revocations", "covers"):
        op.add_column("ca_crls", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    op.execute("UPDATE ca_crls SET covers = -1")  # of none that is there it is known: they are made anew


def _rollover() -> None:
    """Exchanging the root: how far it has come, and who was handed both roots."""
    op.create_table(
        "ca_rollovers",
        sa.Column("id", sa.Text(), nullable=False),
        *(sa.Column(name, sa.LargeBinary(), nullable=False) for name in ("old", "new")),
        sa.Column("phase", sa.Text(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("started_at", "changed_at", "version")),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "ca_anchors_fetched",
        sa.Column("new", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("new", "name"),
    )


def _inventory() -> None:
    """The inventory is read as certificates end: all, of a profile, of an issuer, of what is revoked."""
    revoked = sa.text("revoked_at IS NOT NULL")
    table, ends = "ca_certificates", ["not_after", "thumbprint"]
    op.create_index("ca_certificates_end", table, ends)
    op.create_index("ca_certificates_profile_end", table, ["profile", *ends])
    op.create_index("ca_certificates_issuer_end", table, ["issuer", *ends])
    op.create_index("ca_certificates_revoked_end", table, ends, sqlite_where=revoked, postgresql_where=revoked)


def _registered() -> None:
    """The inventory notes which certificates registered: a device's own, not the identity that asks for it."""
    op.add_column("ca_certificates", sa.Column("registered_at", sa.BigInteger(), nullable=True))


def _tpm() -> None:
    """DPS registers by TPM: whose TPM proved itself, the key it got, and storage root keys of before."""
    for name in ("endorsement_key", "storage_root_key", "authentication_key"):
        op.add_column("dps_registrations", sa.Column(name, sa.LargeBinary(), nullable=True))
    op.create_table(
        "dps_tpm_roots",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("scope", "registration_id", "storage_root_keys")),
        sa.PrimaryKeyConstraint("scope", "registration_id"),
    )


def _thing_groups() -> None:
    """Thing groups of AWS IoT, and which things are in them."""
    op.create_table(
        "aws_thing_groups",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("name", "group_id", "properties")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("version", "created_at")),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "aws_thing_group_members",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("thing_group", "thing")),
        sa.PrimaryKeyConstraint("thing_group", "thing"),
    )
    op.create_index("aws_thing_group_members_thing", "aws_thing_group_members", ["thing", "thing_group"])


def _lost_names() -> None:
    """A name that was taken back with its device: nobody gets a certificate for it until an operator lets it go.

    And the names of a refusal are found by it, so that they leave together.
    """
    op.add_column("ca_names", sa.Column("lost_at", sa.BigInteger(), nullable=True))
    op.create_index("refusal_subjects_refusal", "refusal_subjects", ["refusal"])


def _revoked_cas() -> None:
    """CAs that were taken back are found by their subject; those of before are few, and looked at beside."""
    op.add_column("ca_revoked_cas", sa.Column("subject_digest", sa.Text(), nullable=True))
    op.create_index("ca_revoked_cas_subject", "ca_revoked_cas", ["subject_digest"])


def _fetched_requests() -> None:
    """When an approved request was fetched: for a while it is answered again, as an answer gets lost."""
    op.add_column("est_requests", sa.Column("fetched_at", sa.BigInteger(), nullable=True))
    op.create_index("est_requests_decided_at", "est_requests", ["decided_at", "actor"])
    op.create_index("est_requests_fetched_at", "est_requests", ["fetched_at"])


def _many_of_a_name() -> None:
    """Certificates of a name, in use or revoked, what asked for what, and serial numbers, by indexes."""
    table = "ca_certificates"
    for stale in ("serial", "device", "key"):
        op.drop_index(f"ca_certificates_{stale}", table)
    op.drop_index("ca_keys_name", "ca_keys")
    op.create_index("ca_keys_name", "ca_keys", ["name", "revoked_at"])
    op.create_index("ca_certificates_serial", table, ["serial", "issuer"], unique=True)
    op.create_index("ca_certificates_key", table, ["key_digest", "revoked_at", "not_after"])
    op.create_index("ca_certificates_parent", table, ["parent", "name", "revoked_at", "not_after"])
    for name, columns, condition in (
        ("live", ["name", "not_after", "thumbprint", "profile"], "revoked_at IS NULL"),
        ("taken_back", ["name", "revoked_at", "revocation_reason"], "revoked_at IS NOT NULL"),
        ("registered", ["parent", "name", "not_after"], "registered_at IS NOT NULL"),
    ):
        which = sa.text(condition)
        op.create_index(f"ca_certificates_{name}", table, columns, sqlite_where=which, postgresql_where=which)
