"""The ledger's tables: one row per refusal, and one per name it can be found by."""

from sqlalchemy import BigInteger, Column, Index, Table, Text, bindparam, delete, func, or_, select

from birthmark.store import insert, metadata, statement

refusals = Table(
    "refusals",
    metadata,
    Column("id", Text, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("code", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("cause", Text, nullable=False),
    Column("fix", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("facts", Text, nullable=False),
)
Index("refusals_at", refusals.c.at)

subjects = Table(
    "refusal_subjects",
    metadata,
    Column("subject", Text, primary_key=True),
    Column("refusal", Text, primary_key=True),
    Column("at", BigInteger, nullable=False),
)
Index("refusal_subjects_at", subjects.c.at)

ADD = insert(refusals)
NAME = insert(subjects, ignore_existing=True)
ABOUT = statement(
    select(refusals)
    .join(subjects, subjects.c.refusal == refusals.c.id)
    .where(subjects.c.subject == bindparam("subject"))
    .order_by(refusals.c.at.desc())
    .limit(bindparam("limit"))
)
LATEST = statement(select(refusals).order_by(refusals.c.at.desc()).limit(bindparam("limit")))
_FIRST_TOO_MANY = select(refusals.c.at).order_by(refusals.c.at.desc()).limit(1).offset(bindparam("kept"))
FORGET = statement(
    delete(refusals).where(or_(refusals.c.at < bindparam("before"), refusals.c.at <= _FIRST_TOO_MANY.scalar_subquery()))
)
# After `FORGET`: a name goes with the oldest refusal there is.
FORGET_NAMES = statement(
    delete(subjects).where(
        subjects.c.at < func.coalesce(select(func.min(refusals.c.at)).scalar_subquery(), bindparam("before"))
    )
)
