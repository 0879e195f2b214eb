"""Options and output of commands that list issued certificates."""

import csv
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from birthmark.cli.options.duration import parse_within
from birthmark.durations import FORMS, format_duration
from birthmark.untrusted_json_and_text import cell

COLUMNS = (
    "device",
    "profile",
    "issuer",
    "serial",
    "thumbprint",
    "not_before",
    "not_after",
    "requested_by",
    "revoked",
    "reason",
)
INVENTORY_COLUMNS = ("device", "profile", "not_after", "revoked", "thumbprint")


def parse_moment(text: str) -> datetime:
    """Parse an ISO 8601 time; without a zone it is UTC, without a time it is 00:00."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is not a date or time such as 2026-12-24 or 2026-12-24T18:00:00+01:00"
        ) from error
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class InventoryOptions:
    """Filter and output format of certificates."""

    expiring: Annotated[
        timedelta | None,
        typer.Option(
            parser=parse_within,
            metavar="DURATION",
            help=f"Valid certificates that expire within this duration, such as {FORMS}.",
        ),
    ] = None
    expired: Annotated[bool, typer.Option("--expired", help="Show only expired certificates.")] = False
    revoked: Annotated[bool, typer.Option("--revoked", help="Revoked certificates.")] = False
    unrevoked: Annotated[
        bool, typer.Option("--unrevoked", help="Certificates that are not revoked, expired or not.")
    ] = False
    ends_from: Annotated[
        datetime | None,
        typer.Option(parser=parse_moment, metavar="DATE", help="Earliest expiry; UTC unless a zone is given."),
    ] = None
    ends_to: Annotated[
        datetime | None, typer.Option(parser=parse_moment, metavar="DATE", help="Expiry before this time.")
    ] = None
    of_profile: Annotated[str | None, typer.Option("--cert-profile", metavar="NAME", help="Certificate profile.")] = (
        None
    )
    of_issuer: Annotated[
        str | None, typer.Option("--issuer", metavar="NAME", help="Issuing CA: issuing, est, edge, servers, root.")
    ] = None
    everything: Annotated[bool, typer.Option("--all", help="All certificates, sorted by expiry.")] = False
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values with a header.")] = False

    @property
    def is_asked(self) -> bool:
        """Whether any of these options was given."""
        told = (self.expiring, self.of_profile, self.of_issuer, self.ends_from, self.ends_to)
        flags = (self.expired, self.revoked, self.unrevoked, self.everything, self.as_csv)
        return any(one is not None for one in told) or any(flags)

    @property
    def nothing(self) -> str:
        """Message for an empty result."""
        if self.expiring is not None:
            return f"No certificate expires within {format_duration(self.expiring)}."
        return "No certificate matches."

    @property
    def said(self) -> dict[str, object]:
        """Options by name, as given."""
        ends = {"ends_from": self.ends_from, "ends_to": self.ends_to, "unrevoked": self.unrevoked}
        named = {"expired": self.expired, "revoked": self.revoked, "profile": self.of_profile}
        return {"expiring": self.expiring, **named, **ends}

    @property
    def query(self) -> dict[str, object]:
        """Query parameters of the operator API."""
        within = None if self.expiring is None else int(self.expiring.total_seconds())
        words: dict[str, object] = {"expiring_s": within, "profile": self.of_profile, "issuer": self.of_issuer}
        ends = {"ends_from": self.ends_from, "ends_to": self.ends_to}
        words |= {name: None if at is None else at.isoformat() for name, at in ends.items()}
        flags = {"expired": self.expired, "revoked": self.revoked, "unrevoked": self.unrevoked}
        return words | {name: "true" for name, is_set in flags.items() if is_set}


def export(rows: Iterable[Mapping[str, Any]], *, as_csv: bool) -> int:
    """Print each row as it arrives, and return the number of rows."""
    count = 0
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if as_csv:
        writer.writerow(COLUMNS)
    for row in rows:
        count += 1
        if as_csv:
            writer.writerow(cell(row.get(name)) for name in COLUMNS)
        else:
            typer.echo(json.dumps(row))
    return count
