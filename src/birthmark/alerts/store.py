"""Alert tables and their SQL statements."""

from sqlalchemy import BigInteger, ColumnElement, Table, bindparam, cast, literal_column, or_, select

from birthmark.alerts.model import Alert, ConnectionTakeovers, MachineReading, Silence
from birthmark.store import Statement, insert, upsert
from birthmark.store.core_tables import metadata
from birthmark.store.plain_and_encrypted_column_types import number, text
from birthmark.store.row_mapper import RowMapper
from birthmark.store.table_statements import change, find, remove

ALERTS = RowMapper(Alert)
alerts = ALERTS.table("alerts", "rule", "subject")
ALL = find(alerts, alerts.c.rule != "", limit=1000)
ADD = insert(alerts)
STATE = ("severity", "detail", "count", "examples", "raised_at", "missed_at", "is_told", "is_hushed")
AS_READ = ("rule", "subject", "seen_at", "is_told", "is_hushed")
CHANGE = change(alerts, STATE, *AS_READ)
REMOVE = remove(alerts, *AS_READ)

SILENCES = RowMapper(Silence)
silences = SILENCES.table("alert_silences", "rule", "subject")
ALL_SILENCES = find(silences, silences.c.rule != "", limit=1000)
PUT_SILENCE = upsert(silences)
REMOVE_SILENCE = remove(silences)
PURGE_SILENCES = remove(silences, silences.c.until <= bindparam("now"))

LOOKED = RowMapper(MachineReading)
looked = LOOKED.table("alert_machines", "worker")
"""Last machine reading of each worker."""
PUT_LOOKED = upsert(looked)
LOOKED_SINCE = find(looked, looked.c.at > bindparam("since"), limit=1000)
FORGET_LOOKED = remove(looked, looked.c.at <= bindparam("before"))
ENDS = RowMapper(ConnectionTakeovers)
ends = ENDS.table("alert_ends", "kind", "name", "worker")
PUT_ENDS = upsert(ends)
ENDS_SINCE = find(ends, ends.c.at > bindparam("since"), limit=10_000)
FORGET_ENDS = remove(ends, ends.c.at <= bindparam("before"))
_DATABASES: ColumnElement[int] = literal_column("CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)")
TIME = Statement(
    lambda engine: (
        select(_DATABASES.label("now"), literal_column("1").label("is_another"))
        if engine == "postgresql"
        else select(cast(bindparam("now"), BigInteger).label("now"), literal_column("0").label("is_another"))
    )
)
"""Current time of the database; `now` if it shares the clock of this process."""

judges = Table("alert_judges", metadata, text("name", key=True), text("owner"), number("owned_until"))
"""One row: the worker that evaluates alerts for all."""
BEGIN = insert(judges, ignore_existing=True)
_FREE = or_(judges.c.owner == bindparam("key_owner"), judges.c.owned_until <= bindparam("key_now"))
CLAIM = change(judges, ("owner", "owned_until"), "name", _FREE)
