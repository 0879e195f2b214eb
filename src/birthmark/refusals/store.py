"""The ledger's tables: one row per refusal, and one per name it can be found by."""

import ipaddress
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Index, Table, bindparam, select

from birthmark.store import insert, metadata, statement
from birthmark.store.columns import number, text
from birthmark.store.keyed import page, remove
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
Index("refusal_subjects_refusal", subjects.c.refusal)

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
PAGE = page(refusals, "id", of=("id", "at", "address"))
FORGET = remove(refusals, "id")
FORGET_NAMES = remove(subjects, "refusal")


def share_of_row(address: str) -> str:
    """Return whose share a row's address counts in: of IPv6 the /64."""
    return address[:SHARE_CHARS]


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
