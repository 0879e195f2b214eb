"""The ledger's tables: one row per refusal, and one per name it can be found by."""

import ipaddress
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Index, Table, bindparam, delete, func, literal_column, or_, select

from birthmark.store import insert, metadata, statement
from birthmark.store.columns import number, text
from birthmark.store.records import Records

SHARE_CHARS = len("2001:0db8:0000:0000")  # no IPv4 address is as long


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refusal as the operator sees it."""

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


REFUSALS = Records(Refusal)
refusals = REFUSALS.table("refusals", "id")
Index("refusals_at", refusals.c.at)

subjects = Table("refusal_subjects", metadata, text("subject", key=True), text("refusal", key=True), number("at"))
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
# The latest of each address come first, then the second of each, and so on: who has most goes first.
_SHARE = func.substr(refusals.c.address, literal_column("1"), literal_column(str(SHARE_CHARS)))
_RANKED = select(
    refusals.c.id,
    refusals.c.at,
    func.row_number().over(partition_by=_SHARE, order_by=(refusals.c.at.desc(), refusals.c.id)).label("rank"),
).subquery("ranked")
_PLACED = select(
    _RANKED.c.id,
    _RANKED.c.rank,
    func.row_number().over(order_by=(_RANKED.c.rank, _RANKED.c.at.desc())).label("place"),
).subquery("placed")
_TOO_MANY = select(_PLACED.c.id).where(
    or_(
        _PLACED.c.rank > bindparam("of_one", type_=BigInteger),
        _PLACED.c.place > bindparam("kept", type_=BigInteger),
    )
)
FORGET_OLD = statement(delete(refusals).where(refusals.c.at < bindparam("before")))
FORGET_MANY = statement(delete(refusals).where(refusals.c.id.in_(_TOO_MANY)))
# After those: a name goes with its refusal.
FORGET_NAMES = statement(
    delete(subjects).where(
        ~select(refusals.c.id).where(refusals.c.id == subjects.c.refusal).correlate(subjects).exists()
    )
)


def kept_address(address: str) -> str:
    """Return `address` as its row has it: of IPv6 with every digit, so that its first characters are the /64."""
    number, _, zone = address.partition("%")
    try:
        return ipaddress.IPv6Address(number).exploded + (f"%{zone}" if zone else "")
    except ValueError:
        return address


def address_of(kept: str) -> str:
    """Return the address of a row as it is written elsewhere."""
    number, _, zone = kept.partition("%")
    try:
        return str(ipaddress.IPv6Address(number)) + (f"%{zone}" if zone else "")
    except ValueError:
        return kept
