"""What version 0.3.0 changed: people, webhooks, alerts, first contact at AWS, queries, modules, jobs, rules, routes."""

import sqlalchemy as sa
from alembic import op

revision = "0050"
down_revision = "0020"
branch_labels = None
depends_on = None

_FIGURES_HOUR = 3_600_000_000
_FIGURES_WEEK, _FIGURES_THURSDAY = 168 * _FIGURES_HOUR, 72 * _FIGURES_HOUR
_FIGURES_OF_WEEK = f"(not_after + {_FIGURES_THURSDAY}) / {_FIGURES_WEEK} * {_FIGURES_WEEK} - {_FIGURES_THURSDAY}"
_FIGURES_OF_HOUR = f"at / {_FIGURES_HOUR} * {_FIGURES_HOUR}"
_FIGURES_FOUND = """
SELECT 'devices', hub, CASE enabled WHEN 1 THEN 'enabled' ELSE 'disabled' END, 0, 'before', count(*)
FROM hub_devices GROUP BY 2, 3;
SELECT 'things', '', '', 0, 'before', count(*) FROM aws_things GROUP BY 2;
SELECT 'certificates', profile, CASE WHEN revoked_at IS NULL THEN 'valid' ELSE 'revoked' END, {week}, 'before', count(*)
FROM ca_certificates GROUP BY 2, 3, 4;
SELECT 'registrations', {scope}, '', {hour}, 'before', count(*) FROM audit WHERE action = 'dps.register' GROUP BY 2, 4;
SELECT 'refusals', '', code, {hour}, 'before', count(*) FROM refusals GROUP BY 3, 4
"""
_WORDS_ON_RECORD = """
SELECT 'hub/' || hub AS place, device_id AS name FROM hub_devices
UNION ALL SELECT 'aws', name FROM aws_things
UNION ALL SELECT 'dps:' || scope, id FROM dps_enrollments WHERE kind = 'individual'
UNION ALL SELECT 'server', name FROM ca_names WHERE name <> ''
"""
_WORDS_FILL = """
INSERT INTO words (place, word, name)
WITH RECURSIVE starts(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM starts WHERE n < 300),
known AS ({on_record}),
split AS (
  SELECT place, name, n, row_number() OVER (PARTITION BY place, name ORDER BY n) AS k
  FROM known JOIN starts ON n <= length(name)
  WHERE n = 1 OR ({here} AND NOT {before})
)
SELECT DISTINCT place, {word}, name FROM split WHERE k <= 8
"""
_WORDS_SQLITE = {
    "here": "(substr(name, n, 1) GLOB '[0-9a-zA-Z]' OR unicode(substr(name, n, 1)) > 127)",
    "before": "(substr(name, n - 1, 1) GLOB '[0-9a-zA-Z]' OR unicode(substr(name, n - 1, 1)) > 127)",
    "word": "substr(lower(name), n, 64)",
}
_WORDS_POSTGRESQL = {
    "here": "(substr(name, n, 1) ~ '[0-9a-zA-Z]' OR ascii(substr(name, n, 1)) > 127)",
    "before": "(substr(name, n - 1, 1) ~ '[0-9a-zA-Z]' OR ascii(substr(name, n - 1, 1)) > 127)",
    "word": "substr(translate(name, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', 'abcdefghijklmnopqrstuvwxyz'), n, 64)",
}


def upgrade() -> None:
    _expiring_retained()
    _missed()
    _people()
    _webhooks()
    _figures()
    _words()
    _alerts()
    _allowances()
    _sign_in()
    _alert_machines()
    _once()
    _notices()
    _lists()
    _notices_of_one()
    _provisioning()
    _credentials()
    _registry()
    _renewal()
    _credentials_0042()
    _queries()
    _modules()
    _tiers()
    _allocation()
    _jobs()
    _rules()
    _job_files()
    _hub_routing()


def _expiring_retained() -> None:
    """Retained messages whose time is over are found by an index."""
    which = sa.text("expires_at IS NOT NULL")
    op.create_index("retained_expires_at", "retained", ["expires_at"], sqlite_where=which, postgresql_where=which)


def _missed() -> None:
    """What other workers could not tell one, and what it has read since; when a session was seen; where streams end."""
    for name in ("missed", "heard"):
        op.add_column("workers", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    op.create_table(
        "stream_ends",
        sa.Column("stream", sa.Text(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("seq", "at", "upto")),
        sa.PrimaryKeyConstraint("stream"),
    )
    op.add_column("sessions", sa.Column("seen_at", sa.BigInteger(), nullable=True))
    op.add_column("sessions", sa.Column("gone", sa.Text(), nullable=True))


def _people() -> None:
    """People: users, their roles, tokens and invitations."""
    op.create_table(
        "people_users",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("made_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "people_grants",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("user_name", "role", "place")),
        sa.PrimaryKeyConstraint("user_name", "role", "place"),
    )
    op.create_table(
        "people_tokens",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("id", "user_name", "digest", "label", "made_by")),
        *(sa.Column(name, sa.Text(), nullable=True) for name in ("role", "place")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("created_at", "ends_at")),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("people_tokens_user", "people_tokens", ["user_name"], unique=False)
    op.create_table(
        "people_invitations",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("digest", "user_name", "made_by")),
        sa.Column("ends_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_table(
        "people_approvals",
        *(
            sa.Column(name, sa.Text(), nullable=False)
            for name in ("digest", "id", "user_name", "what", "method", "path", "body", "needs", "place")
        ),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("asked_at", "ends_at")),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.Column("is_approved", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_index("people_approvals_id", "people_approvals", ["id"], unique=False)
    op.create_index("people_invitations_user", "people_invitations", ["user_name"], unique=False)


def _webhooks() -> None:
    """Webhooks: receivers and how far each is, and what was put aside."""
    op.create_table(
        "webhooks",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("name", "url", "types", "secret", "former")),
        sa.Column("places", sa.Text(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("created_at", "is_paused", "tries", "next_at")),
        sa.Column("failed_since", sa.BigInteger(), nullable=True),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("problem", "owner")),
        sa.Column("owned_until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "webhook_dead",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("id", "hook")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("at", "count")),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("webhook_dead_hook", "webhook_dead", ["hook", "at"], unique=False)


def _figures() -> None:
    """Figures: how many there are of something, by worker; those of what is there already are counted once, here."""
    op.create_table(
        "figures",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("name", "place", "state")),
        sa.Column("since", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", "place", "state", "since", "worker"),
        sqlite_with_rowid=False,
    )
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    scope = "coalesce(json_extract(detail, '$.scope'), '')" if is_sqlite else "coalesce(detail::json->>'scope', '')"
    for found in _FIGURES_FOUND.format(scope=scope, week=_FIGURES_OF_WEEK, hour=_FIGURES_OF_HOUR).split(";"):
        op.execute(f"INSERT INTO figures (name, place, state, since, worker, value) {found}")


def _words() -> None:
    """Names of devices by the beginning of any of their words, as `birthmark.store.name_index` splits them."""
    ordered = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "words",
        sa.Column("place", sa.Text(), nullable=False),
        *(sa.Column(name, ordered, nullable=False) for name in ("word", "name")),
        sa.PrimaryKeyConstraint("place", "word", "name"),
        sqlite_with_rowid=False,
    )
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    op.execute(_WORDS_FILL.format(on_record=_WORDS_ON_RECORD, **(_WORDS_SQLITE if is_sqlite else _WORDS_POSTGRESQL)))


def _alerts_text(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text(), nullable=False) for name in names]


def _alerts() -> None:
    """Alerts, silences, and which worker judges."""
    op.create_table(
        "alerts",
        *_alerts_text("rule", "subject", "severity", "detail"),
        sa.Column("count", sa.BigInteger(), nullable=False),
        *_alerts_text("examples"),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=True) for name in ("raised_at", "missed_at")),
        sa.Column("is_told", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("rule", "subject"),
    )
    op.create_table(
        "alert_silences",
        *_alerts_text("rule", "subject"),
        sa.Column("until", sa.BigInteger(), nullable=False),
        *_alerts_text("by", "reason"),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("rule", "subject"),
    )
    op.create_table(
        "alert_judges",
        *_alerts_text("name", "owner"),
        sa.Column("owned_until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )


def _allowances() -> None:
    """How many devices a person may still take away today."""
    op.create_table(
        "people_allowances",
        sa.Column("user_name", sa.Text(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("remaining", "until")),
        sa.PrimaryKeyConstraint("user_name"),
    )


def _sign_in() -> None:
    """Sign-in of people: passwords, links to other providers, sessions, and commands that wait to be let in."""
    op.create_table(
        "people_passwords",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("user_name", "hash", "let_in_by")),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.Column("addresses", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("user_name"),
    )
    op.create_table(
        "people_links",
        *(
            sa.Column(name, sa.Text(), nullable=False)
            for name in ("issuer", "subject", "user_name", "provider", "let_in_by")
        ),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("issuer", "subject"),
    )
    op.create_index("people_links_user", "people_links", ["user_name"], unique=False)
    op.create_table(
        "people_sessions",
        *(
            sa.Column(name, sa.Text(), nullable=False)
            for name in ("id", "user_name", "digest", "how", "address", "agent", "let_in_by")
        ),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("created_at", "used_at", "ends_at")),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("people_sessions_user", "people_sessions", ["user_name"], unique=False)
    op.create_table(
        "people_asking",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("digest", "code", "label", "address")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("ends_at", "interval_s", "asked_at")),
        *(sa.Column(name, sa.Text(), nullable=True) for name in ("user_name", "let_in_by")),
        sa.Column("is_agreed", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_index("people_asking_code", "people_asking", ["code"], unique=True)


def _alert_machines() -> None:
    """What each worker sees of its own machine and connections, for alerts; which alerts are silenced."""
    op.create_table(
        "alert_machines",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("worker", "machine")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("at", "disk_free_ppm", "is_clock_steady")),
        *(sa.Column(name, sa.BigInteger(), nullable=True) for name in ("clock_off_us", "server_ends")),
        sa.PrimaryKeyConstraint("worker"),
    )
    op.create_table(
        "alert_ends",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("kind", "name", "worker")),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("ends", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "name", "worker"),
    )
    op.add_column("alerts", sa.Column("is_hushed", sa.BigInteger(), nullable=False, server_default="0"))


def _once() -> None:
    """Requests that are carried out once, and what was answered."""
    op.create_table(
        "people_once",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("digest", "who", "asked")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("began_at", "ends_at")),
        sa.Column("status", sa.BigInteger(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_index("people_once_who", "people_once", ["who"], unique=False)
    op.create_index("people_once_ends", "people_once", ["ends_at"], unique=False)


def _notices() -> None:
    """What is noticed and is in no audit trail: who came and went, and who was refused."""
    op.create_table(
        "notices",
        sa.Column("chain", sa.Text(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("seq", "at")),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("action", "subject", "detail")),
        sa.PrimaryKeyConstraint("chain", "seq"),
    )
    op.create_index("notices_at", "notices", ["at"], unique=False)
    op.create_table(
        "noticed",
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("chain"),
    )


def _lists() -> None:
    """Indexes of lists: the audit by actor, action and subject, refusals by code, disabled devices."""
    op.drop_index("audit_subject", table_name="audit")
    op.create_index("audit_at", "audit", ["at"], unique=False)
    for name in ("actor", "action", "subject"):
        op.create_index(f"audit_{name}", "audit", [name, "at"], unique=False)
    op.create_index("refusals_code", "refusals", ["code", "at"], unique=False)
    op.create_index("refusal_subjects_about", "refusal_subjects", ["subject", "at"], unique=False)
    off = sa.text("enabled = 0")
    op.create_index(
        "hub_devices_off",
        "hub_devices",
        ["hub", "device_id"],
        unique=False,
        sqlite_where=off,
        postgresql_where=off,
    )


def _notices_of_one() -> None:
    """What was noticed of one device, found by its name."""
    op.create_index("notices_subject", "notices", ["subject", "at"], unique=False)


def _provisioning_text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=nullable)


def _provisioning_number(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), autoincrement=False, nullable=nullable)


def _provisioning() -> None:
    """Provisioning templates, certificates that are not used yet, claim certificates, and bulk registrations."""
    op.create_table(
        "aws_owned_certificates",
        *(_provisioning_text(name) for name in ("certificate_id", "digest", "principal", "client_id")),
        _provisioning_number("until"),
        sa.PrimaryKeyConstraint("certificate_id"),
    )
    op.create_index("aws_owned_certificates_digest", "aws_owned_certificates", ["digest"], unique=True)
    op.create_index("aws_owned_certificates_principal", "aws_owned_certificates", ["principal", "until"], unique=False)
    op.create_table(
        "aws_task_lines",
        _provisioning_text("task_id"),
        _provisioning_number("line"),
        _provisioning_number("done"),
        _provisioning_text("body"),
        sa.PrimaryKeyConstraint("task_id", "line"),
    )
    op.create_table(
        "aws_tasks",
        *(_provisioning_text(name) for name in ("task_id", "body", "bucket", "key", "role_arn", "status", "message")),
        *(_provisioning_number(name) for name in ("done", "total", "succeeded", "failed")),
        *(_provisioning_text(name) for name in ("link", "actor")),
        *(_provisioning_number(name) for name in ("created_at", "modified_at")),
        sa.PrimaryKeyConstraint("task_id"),
    )
    op.create_index("aws_tasks_status", "aws_tasks", ["status", "task_id"], unique=False)
    op.create_table(
        "aws_template_versions",
        _provisioning_text("template"),
        _provisioning_number("version"),
        _provisioning_text("body"),
        _provisioning_number("created_at"),
        sa.PrimaryKeyConstraint("template", "version"),
    )
    op.create_table(
        "aws_templates",
        *(_provisioning_text(name) for name in ("name", "kind", "description")),
        _provisioning_number("enabled"),
        _provisioning_text("role_arn"),
        _provisioning_text("hook", nullable=True),
        *(_provisioning_number(name) for name in ("default_version", "last_version")),
        _provisioning_text("generation_id"),
        *(_provisioning_number(name) for name in ("created_at", "modified_at")),
        sa.PrimaryKeyConstraint("name"),
    )
    op.add_column("aws_certificates", _provisioning_text("claim", nullable=True))
    op.add_column("aws_certificates", _provisioning_number("until", nullable=True))
    goes = sa.text("until IS NOT NULL")
    op.create_index(
        "aws_certificates_until", "aws_certificates", ["until"], unique=False, sqlite_where=goes, postgresql_where=goes
    )


def _credentials() -> None:
    """Custom authorizers, role aliases, and what an access key may do."""
    op.create_table(
        "aws_authorizers",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("function_arn", sa.Text(), nullable=False),
        sa.Column("token_key_name", sa.Text(), nullable=True),
        sa.Column("signing_keys", sa.Text(), nullable=False),
        sa.Column("active", sa.BigInteger(), nullable=False),
        sa.Column("signing_disabled", sa.BigInteger(), nullable=False),
        sa.Column("caches_http", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("modified_at", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "aws_defaults",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("kind"),
    )
    op.create_table(
        "aws_role_aliases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("alias_id", sa.Text(), nullable=False),
        sa.Column("role_arn", sa.Text(), nullable=False),
        sa.Column("duration_s", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("modified_at", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "aws_session_secrets",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.add_column("aws_access_keys", sa.Column("policy", sa.Text(), nullable=True))


def _registry() -> None:
    """The registry in depth: tags, groups in groups, PEMs as given, settings, and the index that is searched."""
    text, number = sa.Text(), sa.BigInteger()
    ordered = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "aws_tags",
        *(sa.Column(name, text, nullable=False) for name in ("kind", "name", "tags")),
        sa.Column("revision", number, nullable=False),
        sa.PrimaryKeyConstraint("kind", "name"),
    )
    for name in ("parent", "query"):
        op.add_column("aws_thing_groups", sa.Column(name, text, nullable=True))
    op.create_index("aws_thing_groups_parent", "aws_thing_groups", ["parent", "name"], unique=False)
    op.create_table(
        "aws_thing_group_lines",
        *(sa.Column(name, text, nullable=False) for name in ("thing_group", "ancestor")),
        sa.Column("distance", number, nullable=False),
        sa.PrimaryKeyConstraint("thing_group", "ancestor"),
    )
    op.create_index("aws_thing_group_lines_below", "aws_thing_group_lines", ["ancestor", "thing_group"], unique=False)
    op.execute("INSERT INTO aws_thing_group_lines SELECT name, name, 0 FROM aws_thing_groups")
    op.drop_index("aws_policy_targets_certificate", table_name="aws_policy_targets")
    op.execute("ALTER TABLE aws_policy_targets RENAME COLUMN certificate_id TO target")
    op.create_index("aws_policy_targets_target", "aws_policy_targets", ["target", "policy"], unique=False)
    for table in ("aws_certificates", "aws_cas"):
        op.add_column(table, sa.Column("pem", text, nullable=True))
    op.create_table(
        "aws_settings",
        *(sa.Column(name, text, nullable=False) for name in ("name", "value")),
        *(sa.Column(name, number, nullable=False) for name in ("revision", "at", "made_at")),
        sa.PrimaryKeyConstraint("name"),
    )
    op.execute("INSERT INTO aws_settings VALUES ('events', '{}', 0, 0, 0), ('indexing', '{}', 0, 0, 0)")
    op.create_table(
        "aws_terms",
        sa.Column("place", text, nullable=False),
        *(sa.Column(name, ordered, nullable=False) for name in ("field", "value", "subject")),
        sa.Column("source", text, nullable=False),
        sa.Column("number", number, nullable=True),
        sa.PrimaryKeyConstraint("place", "field", "value", "subject"),
        sqlite_with_rowid=False,
    )
    op.create_index("aws_terms_subject", "aws_terms", ["subject", "place", "source"], unique=False)
    counted = sa.text("number IS NOT NULL")
    op.create_index(
        "aws_terms_number",
        "aws_terms",
        ["place", "field", "number", "subject"],
        unique=False,
        sqlite_where=counted,
        postgresql_where=counted,
    )


def _renewal() -> None:
    """Certificates at AWS that follow others."""
    op.add_column("aws_certificates", sa.Column("replaces", sa.Text(), nullable=True))


def _credentials_0042() -> None:
    """Certificates that devices are issued as they register, and by their hub."""
    op.add_column("dps_registrations", sa.Column("issued_key", sa.LargeBinary(), nullable=True))
    op.add_column("dps_registrations", sa.Column("issued_by", sa.Text(), nullable=True))
    op.add_column("dps_registrations", sa.Column("issued_at", sa.BigInteger(), nullable=True))
    op.add_column("dps_registrations", sa.Column("issued_chain", sa.Text(), nullable=True))
    op.create_table(
        "hub_credentials",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("hub", "device_id", "generation_id", "version")),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("session", sa.Text(), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("thumbprint", sa.LargeBinary(), nullable=True),
        sa.Column("key_digest", sa.LargeBinary(), nullable=True),
        sa.Column("issued_at", sa.BigInteger(), nullable=True),
        sa.Column("chain", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("hub", "device_id"),
    )


def _queries() -> None:
    """The terms by which twins are found, and which twins have theirs still to be written: at first all.

    Device ids are in the order of code points on both engines: whoever goes through devices by their terms, and then by
    their names, meets them in one order.
    """
    ordered = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    if op.get_bind().dialect.name == "postgresql":
        for table in ("hub_devices", "hub_twins"):
            op.execute(f'ALTER TABLE {table} ALTER COLUMN device_id TYPE text COLLATE "C"')
    op.add_column("hub_twins", sa.Column("unindexed", sa.BigInteger(), server_default="3", nullable=False))
    for name, table, columns, condition in (
        ("hub_twins_unindexed", "hub_twins", ["unindexed", "hub", "device_id"], "unindexed > 0"),
        ("hub_devices_edge", "hub_devices", ["hub", "device_id"], "iot_edge = 1"),
    ):
        where = sa.text(condition)
        op.create_index(name, table, columns, unique=False, sqlite_where=where, postgresql_where=where)
    op.create_table(
        "hub_terms",
        sa.Column("place", sa.Text(), nullable=False),
        *(sa.Column(name, ordered, nullable=False) for name in ("path", "value", "subject")),
        sa.PrimaryKeyConstraint("place", "path", "value", "subject"),
        sqlite_with_rowid=False,
    )
    op.create_index("hub_terms_subject", "hub_terms", ["subject", "place"], unique=False)


def _modules() -> None:
    """Modules of devices at hubs, the gateways that devices are behind, CA certificates that vouch for devices."""
    key = ("hub", "device_id", "module_id")
    op.create_table(
        "hub_modules",
        *(sa.Column(name, sa.Text(), nullable=False) for name in key),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("generation_id", "etag", "auth_type", "managed_by")),
        *(sa.Column(f"{place}_thumbprint", sa.Text(), nullable=True) for place in ("primary", "secondary")),
        *(sa.Column(f"{place}_key", sa.LargeBinary(), nullable=True) for place in ("primary", "secondary")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("created_at", "updated_at")),
        sa.PrimaryKeyConstraint(*key),
    )
    op.add_column("hub_devices", sa.Column("parent_scopes", sa.Text(), nullable=True))
    op.create_table(
        "hub_authorities",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("hub", "name", "subject_digest", "etag")),
        sa.Column("der", sa.LargeBinary(), nullable=False),
        sa.Column("verification_code", sa.Text(), nullable=True),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("verified", "created_at", "updated_at")),
        sa.PrimaryKeyConstraint("hub", "name"),
    )
    op.create_index("hub_authorities_subject", "hub_authorities", ["hub", "subject_digest"])


def _tiers() -> None:
    """Tiers of hubs and of provisioning services, whose limits count where there is one."""
    for table in ("hubs", "dps_instances"):
        op.add_column(table, sa.Column("tier", sa.Text(), nullable=True))


def _allocation() -> None:
    """What the program that chooses a device's hub has for it."""
    op.add_column("dps_registrations", sa.Column("payload", sa.Text(), nullable=True))


def _jobs_table(
    name: str, keys: tuple[str, ...], texts: tuple[str, ...], numbers: tuple[str, ...], none: tuple[str, ...]
) -> None:
    op.create_table(
        name,
        *(sa.Column(one, sa.Text(), nullable=False) for one in keys),
        *(sa.Column(one, sa.Text(), nullable=one in none) for one in texts),
        *(sa.Column(one, sa.BigInteger(), nullable=one in none) for one in numbers),
        sa.PrimaryKeyConstraint(*keys),
    )


def _jobs() -> None:
    """Jobs of AWS IoT: what they are for, how far they are on each thing, and what devices were told."""
    _jobs_table(
        "aws_jobs",
        ("job_id",),
        ("document", "description", "settings", "template", "status", "reason_code", "comment"),
        ("continuous", "forced", "created_at", "updated_at", "completed_at", "rolled", "rolled_at", "revision"),
        ("description", "template", "reason_code", "comment", "completed_at"),
    )
    op.create_index("aws_jobs_status", "aws_jobs", ["status", "job_id"], unique=False)
    _jobs_table("aws_job_targets", ("job_id", "target"), ("reached",), ("done",), ())
    _jobs_table(
        "aws_job_executions",
        ("job_id", "thing"),
        ("status", "details"),
        (
            *("number", "version", "forced", "queued_at", "started_at"),
            *("updated_at", "ends_at", "step_ends_at", "due_at"),
        ),
        ("started_at", "ends_at", "step_ends_at", "due_at"),
    )
    op.create_index("aws_job_executions_status", "aws_job_executions", ["job_id", "status", "thing"], unique=False)
    by_turn = ["thing", "status", "queued_at", "job_id"]
    op.create_index("aws_job_executions_thing", "aws_job_executions", by_turn, unique=False)
    _jobs_table("aws_job_templates", ("template_id",), ("description", "document", "settings"), ("created_at",), ())
    _jobs_table("aws_job_notices", ("thing",), ("listed", "next"), ("owed_at", "revision"), ("owed_at",))
    for name, table, column in (
        ("aws_job_executions_due", "aws_job_executions", "due_at"),
        ("aws_job_notices_owed", "aws_job_notices", "owed_at"),
    ):
        where = sa.text(f"{column} IS NOT NULL")
        op.create_index(name, table, [column], unique=False, sqlite_where=where, postgresql_where=where)


def _rules_table(
    name: str,
    key: str,
    texts: tuple[str, ...],
    numbers: tuple[str, ...],
    *,
    none: tuple[str, ...] = (),
    blobs: tuple[str, ...] = (),
) -> None:
    op.create_table(
        name,
        sa.Column(key, sa.Text(), nullable=False),
        *(sa.Column(one, sa.Text(), nullable=False) for one in texts),
        *(sa.Column(one, sa.BigInteger(), nullable=one in none) for one in numbers),
        *(sa.Column(one, sa.LargeBinary(), nullable=False) for one in blobs),
        sa.PrimaryKeyConstraint(key),
    )


def _rules() -> None:
    """Topic rules of AWS IoT, where they send, streams, and what waits to leave."""
    _rules_table("aws_topic_rules", "name", ("payload",), ("is_disabled", "created_at", "modified_at", "revision"))
    _rules_table("aws_rule_destinations", "id", ("url", "status", "reason", "token"), ("created_at", "modified_at"))
    _rules_table("aws_streams", "name", (), ("created_at",))
    _rules_table(
        "routing_letters",
        "id",
        ("lane", "kind", "address", "origin", "problem"),
        ("created_at", "tries", "due_at", "dead_at"),
        none=("dead_at",),
        blobs=("body",),
    )
    op.create_index("routing_letters_lane", "routing_letters", ["lane", "id"], unique=False)
    alive = sa.text("dead_at IS NULL")
    op.create_index(
        "routing_letters_due", "routing_letters", ["due_at"], unique=False, sqlite_where=alive, postgresql_where=alive
    )


def _job_files() -> None:
    """Jobs of AWS IoT: where a document was read, its parameters, and since when a job is paused."""
    op.add_column("aws_jobs", sa.Column("source", sa.Text(), nullable=True))
    op.add_column("aws_jobs", sa.Column("parameters", sa.Text(), nullable=False, server_default="{}"))
    op.add_column("aws_jobs", sa.Column("paused_at", sa.BigInteger(), nullable=True))
    op.add_column("aws_job_templates", sa.Column("source", sa.Text(), nullable=True))


def _hub_routing() -> None:
    """Routes of hubs."""
    op.create_table(
        "hub_routing",
        sa.Column("hub", sa.Text(), nullable=False),
        sa.Column("generation", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("secrets", sa.Text(), nullable=False),
        sa.Column("modified_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("hub"),
    )
