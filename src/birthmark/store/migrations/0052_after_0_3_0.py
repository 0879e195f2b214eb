"""What this version changed: when a thing joined a group; revoked names; Event Hubs readers and jobs of hubs."""

import sqlalchemy as sa
from alembic import op

revision = "0052"
down_revision = "0050"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _group_members()
    _revoked_names()
    _stream_totals()
    _event_readers()
    _configurations()
    _scheduled_jobs()
    _webhook_forms()
    _file_storage()
    _registry_jobs()


def _group_members() -> None:
    """Thing groups: since when a thing is a member, so that a continuous job knows who joined again."""
    op.add_column(
        "aws_thing_group_members", sa.Column("joined_at", sa.BigInteger(), nullable=False, server_default="0")
    )


def _revoked_names() -> None:
    """Names that are revoked are found by an index of their own."""
    lost = sa.text("lost_at IS NOT NULL")
    op.create_index("ca_names_lost", "ca_names", ["name"], unique=False, sqlite_where=lost, postgresql_where=lost)


def _stream_totals() -> None:
    """Streams: how many messages each partition has had, so that a message has a number without gaps."""
    totals = [f"total_{partition}" for partition in range(4)]
    for table in ("segments", "stream_ends"):
        with op.batch_alter_table(table) as altered:
            for name in totals:
                altered.add_column(sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    counted = ", ".join(
        f"SUM(CASE WHEN partition = {partition} THEN count ELSE 0 END) "
        f"OVER (PARTITION BY stream ORDER BY seq) AS {name}"
        for partition, name in enumerate(totals)
    )
    assigned = ", ".join(f"{name} = counted.{name}" for name in totals)
    op.execute(
        sa.text(
            f"UPDATE segments SET {assigned} FROM (SELECT stream, seq, partition, {counted} FROM segments) AS counted "  # noqa: S608 - no input
            "WHERE counted.stream = segments.stream AND counted.seq = segments.seq "
            "AND counted.partition = segments.partition"
        )
    )
    newest = ", ".join(
        f"{name} = COALESCE((SELECT MAX(segments.{name}) FROM segments "  # noqa: S608 - no input
        "WHERE segments.stream = stream_ends.stream), 0)"
        for name in totals
    )
    op.execute(sa.text(f"UPDATE stream_ends SET {newest}"))  # noqa: S608 - no input


def _configurations() -> None:
    """Hubs: configurations and edge deployments."""
    op.create_table(
        "hub_configurations",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("hub", "id", "etag", "kind", "document")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("created_at", "updated_at")),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("results", "rollout")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("is_pending", "is_deleted")),
        sa.PrimaryKeyConstraint("hub", "id"),
    )
    pending = sa.text("is_pending = 1")
    op.create_index(
        *("hub_configurations_pending", "hub_configurations", ["hub", "id"]),
        sqlite_where=pending,
        postgresql_where=pending,
    )


def _event_readers() -> None:
    """Hubs: consumer groups and exclusive readers of the Event Hubs-compatible endpoint."""
    op.create_table(
        "hub_consumer_groups",
        sa.Column("hub", sa.Text(), nullable=False),
        sa.Column("lower_name", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("hub", "lower_name"),
    )
    op.create_table(
        "hub_exclusive_readers",
        sa.Column("hub", sa.Text(), nullable=False),
        sa.Column("consumer_group", sa.Text(), nullable=False),
        sa.Column("partition", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("hub", "consumer_group", "partition"),
    )


def _scheduled_jobs() -> None:
    """Hubs: scheduled jobs, and their devices."""
    number, text = sa.BigInteger, sa.Text
    op.create_table(
        "hub_jobs",
        *(sa.Column(name, text(), nullable=False) for name in ("hub", "job_id")),
        *(sa.Column(name, text(), nullable=False) for name in ("type", "condition", "content", "actor", "status")),
        *(sa.Column(name, number(), nullable=False) for name in ("created_at", "starts_at", "max_s")),
        *(sa.Column(name, number(), nullable=True) for name in ("started_at", "ended_at")),
        sa.Column("reason", text(), nullable=True),
        sa.Column("reached", text(), nullable=False),
        *(sa.Column(name, number(), nullable=False) for name in ("is_selected", "is_open", "total", "running")),
        *(sa.Column(name, number(), nullable=False) for name in ("succeeded", "failed", "canceled", "revision")),
        sa.PrimaryKeyConstraint("hub", "job_id"),
    )
    is_open = sa.text("is_open = 1")
    op.create_index(
        "hub_jobs_open",
        "hub_jobs",
        ["hub", "status", "starts_at", "job_id"],
        sqlite_where=is_open,
        postgresql_where=is_open,
    )
    op.create_index("hub_jobs_status", "hub_jobs", ["hub", "status", "job_id"])
    op.create_index("hub_jobs_ended", "hub_jobs", ["ended_at"])
    op.create_table(
        "hub_job_devices",
        *(sa.Column(name, text(), nullable=False) for name in ("hub", "job_id", "name", "device_id", "type", "status")),
        *(sa.Column(name, number(), nullable=False) for name in ("created_at", "updated_at")),
        *(sa.Column(name, number(), nullable=True) for name in ("started_at", "ended_at")),
        *(sa.Column(name, text(), nullable=True) for name in ("holder", "outcome", "error_code", "error")),
        sa.PrimaryKeyConstraint("hub", "job_id", "name"),
    )
    op.create_index("hub_job_devices_status", "hub_job_devices", ["hub", "job_id", "status", "name"])
    op.create_index("hub_job_devices_device", "hub_job_devices", ["hub", "device_id", "job_id", "name"])
    is_running = sa.text("status = 'running'")
    op.create_index(
        "hub_job_devices_holder",
        "hub_job_devices",
        ["holder"],
        sqlite_where=is_running,
        postgresql_where=is_running,
    )


def _webhook_forms() -> None:
    """Webhooks: the form of their events."""
    op.add_column("webhooks", sa.Column("form", sa.Text(), nullable=True))


def _file_storage() -> None:
    """Files that devices upload: containers, blobs, uncommitted blocks, usage, and open uploads."""
    ordered = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "blob_containers",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("account", "name", "etag")),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "name"),
    )
    op.create_table(
        "blobs",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("account", "container")),
        sa.Column("name", ordered, nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("owner", "file")),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("etag", sa.Text(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("created_at", "modified_at")),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("headers", "metadata", "blocks")),
        sa.PrimaryKeyConstraint("account", "container", "name"),
    )
    op.create_index("blobs_file", "blobs", ["file"], unique=True)
    op.create_table(
        "blob_blocks",
        *(
            sa.Column(name, sa.Text(), nullable=False)
            for name in ("account", "container", "name", "block_id", "owner", "file")
        ),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("size", "staged_at", "expires_at")),
        sa.PrimaryKeyConstraint("account", "container", "name", "block_id"),
    )
    op.create_index("blob_blocks_file", "blob_blocks", ["file"], unique=True)
    op.create_index("blob_blocks_expiry", "blob_blocks", ["expires_at"], unique=False)
    op.create_table(
        "blob_usage",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("account", "owner")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("files", "bytes")),
        sa.PrimaryKeyConstraint("account", "owner"),
    )
    op.create_table(
        "hub_file_uploads",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("hub", "device_id")),
        sa.Column("slot", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("correlation_id", "blob")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("started_at", "expires_at")),
        sa.PrimaryKeyConstraint("hub", "device_id", "slot"),
    )
    op.create_index("hub_file_uploads_correlation", "hub_file_uploads", ["hub", "correlation_id"], unique=True)
    op.create_index("hub_file_uploads_expiry", "hub_file_uploads", ["expires_at"], unique=False)


def _registry_jobs() -> None:
    """Imports and exports of a hub's registry, and the lines that failed."""
    op.create_table(
        "hub_registry_jobs",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("hub", "job_id")),
        sa.Column("is_import", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("running_hub", sa.Text(), nullable=True),
        *(
            sa.Column(name, sa.Text(), nullable=False)
            for name in ("host", "input_container", "input_blob", "input_etag", "output_container", "output_blob")
        ),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("excludes_keys", "done", "tried", "total")),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("failure", "actor")),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("hub", "job_id"),
        sa.UniqueConstraint("running_hub"),
    )
    op.create_table(
        "hub_registry_job_errors",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("hub", "job_id")),
        sa.Column("line", sa.BigInteger(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("hub", "job_id", "line"),
    )
