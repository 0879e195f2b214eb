"""Tables of the ledger: one row per refusal, and one per name that it can be found by."""

import ipaddress
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Index, Table, Text, bindparam, func, select, tuple_

from birthmark.store import Statement, insert, metadata, statement
from birthmark.store.plain_and_encrypted_column_types import number, text
from birthmark.store.row_mapper import RowMapper
from birthmark.store.table_statements import find, is_in_list, page, remove

SHARE_CHARS = len("2001:0db8:0000:0000")  # above IPv4's length


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refusal as shown to the operator."""

    id: str
    at: datetime
    code: str
    message: str
    cause: str
    fix: str
    address: str
    facts: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        """Return the stable JSON form."""
        return asdict(self) | {"at": self.at.isoformat()}


REFUSALS = RowMapper(Refusal)
refusals = REFUSALS.table("refusals", "id")
Index("refusals_at", refusals.c.at)
Index("refusals_code", refusals.c.code, refusals.c.at)

subjects = Table("refusal_subjects", metadata, text("subject", key=True), text("refusal", key=True), number("at"))
Index("refusal_subjects_at", subjects.c.at)
Index("refusal_subjects_about", subjects.c.subject, subjects.c.at)
Index("refusal_subjects_refusal", subjects.c.refusal)

ADD = insert(refusals)
NAME = insert(subjects, ignore_existing=True)
_BEFORE = tuple_(bindparam("before_at", type_=BigInteger), bindparam("before", type_=Text))


def _latest(*, by_code: bool = False, by_subject: bool = False) -> Statement:
    """Return the statement for a page of refusals before a given one, using the index of the filter."""
    question, order = select(refusals), (refusals.c.at, refusals.c.id)
    if by_subject:
        question = question.join(subjects, subjects.c.refusal == refusals.c.id)
        question = question.where(subjects.c.subject == bindparam("subject"))
        order = (subjects.c.at, subjects.c.refusal)
    if by_code:
        question = question.where(refusals.c.code == bindparam("code"))
    question = question.where(tuple_(*order) < _BEFORE).order_by(*(column.desc() for column in order))
    return statement(question.limit(bindparam("limit")))


LATEST, OF_CODE = _latest(), _latest(by_code=True)
ABOUT, ABOUT_OF_CODE = _latest(by_subject=True), _latest(by_subject=True, by_code=True)
_SINCE = subjects.c.at >= bindparam("since")
SUBJECTS_NAMED = statement(select(subjects.c.subject).where(is_in_list(subjects.c.subject), _SINCE).distinct())
SUBJECTS_PAGE = statement(
    select(subjects.c.subject, func.max(subjects.c.at).label("at"))
    .where(subjects.c.subject > bindparam("after"))
    .group_by(subjects.c.subject)
    .order_by(subjects.c.subject)
    .limit(bindparam("limit"))
)
"""Each subject once, with the time of its latest refusal."""
AT = find(refusals, of=("at",))
PAGE = page(refusals, "id", of=("id", "at", "address"))
FORGET = remove(refusals, "id")
FORGET_NAMES = remove(subjects, "refusal")


def share_of_row(address: str) -> str:
    """Return the address share of a row: the /64 for IPv6."""
    return address[:SHARE_CHARS]


def kept_address(address: str) -> str:
    """Return `address` in stored form: IPv6 with every digit, so that its first characters are the /64."""
    number, _, zone = address.partition("%")
    try:
        return ipaddress.IPv6Address(number).exploded + (f"%{zone}" if zone else "")
    except ValueError:
        return address


def address_of(kept: str) -> str:
    """Return the address of a row in its usual notation."""
    number, _, zone = kept.partition("%")
    try:
        return str(ipaddress.IPv6Address(number)) + (f"%{zone}" if zone else "")
    except ValueError:
        return kept
