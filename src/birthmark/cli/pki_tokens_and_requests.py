"""Commands `birthmark pki token`, `authority` and `request`: enrollment tokens, registration authorities, approvals."""

import shlex
from datetime import timedelta
from typing import Annotated

import typer

from birthmark.cli.ca.issue import parse_lifetime
from birthmark.cli.options.server import ListOptions, ServerOutputOptions, at
from birthmark.cli.output.command_output import emit
from birthmark.untrusted_json_and_text import printable

_A_DAY = timedelta(days=1)
_REQUEST_COLUMNS = ("id", "device", "stands", "profile", "asked_by", "address", "asked_at")
_RequestId = Annotated[str, typer.Argument(metavar="ID", help="Request, as listed by `birthmark pki request ls`.")]


def add_token(
    server: ServerOutputOptions,
    device: Annotated[str, typer.Argument(metavar="NAME", help="Device that the token is for.")],
    lifetime: Annotated[
        timedelta | None,
        typer.Option(
            parser=parse_lifetime,
            metavar="DURATION",
            help="Lifetime of the token: 20s, 30min, 12h or 365d (default: 1d).",
        ),
    ] = None,
) -> None:
    """Create a single-use EST password for one device.

    User and password are printed once.

    The first key that enrolls uses it up. That key can retry until the token expires, so a lost response does no harm.
    List and revoke the token as a user (`birthmark pki user ls`).
    """
    server.do("est", "tokens", device_id=device, lifetime_s=int((lifetime or _A_DAY).total_seconds()))


def list_requests(server: ListOptions) -> None:
    """List EST requests that wait for approval.

    Also lists approved and rejected requests whose result was not fetched yet.
    """
    server.show("est", "requests", columns=_REQUEST_COLUMNS, nothing="No request waits.")


def approve(server: ServerOutputOptions, wanted: _RequestId) -> None:
    """Approve a request.

    The device receives its certificate when it retries.
    """
    server.do("est", "requests", wanted, "approve")


def reject(server: ServerOutputOptions, wanted: _RequestId) -> None:
    """Reject a request; `approve` reverses it.

    A certificate that was already fetched stays valid and is reported.
    """
    rejected = server.client.post(at("est", "requests", wanted, "reject"), {})
    emit(server.as_json, rejected)
    if rejected["fetched_at"] is not None:
        back = f"`birthmark pki revoke --device {shlex.quote(printable(rejected['device']))}`"
        typer.echo(
            f"Its certificate was fetched at {rejected['fetched_at']} and remains valid. Revoke it: {back}.", err=True
        )
