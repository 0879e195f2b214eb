"""Revocation status in device lists: revoked devices are marked, whatever the record contains."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import typer

from birthmark.errors import ForbiddenError, shell_word
from birthmark.operator_api.client.server_discovery_and_api_client import OperatorClient
from birthmark.untrusted_json_and_text import printable

_PAGE = 500
_SHA256_DIGITS = 64
REVOKED = "revoked"


def mark_revoked_rows(
    rows: Iterable[dict[str, Any]], client: OperatorClient, *, name: str, state: str
) -> Iterator[dict[str, Any]]:
    """Yield rows, with the state `revoked` where the device or its certificate was revoked."""
    coming = iter(rows)
    # A user with rights for only one hub sees its devices, but not the CA's state of their names.
    while page := list(islice(coming, _PAGE)):
        asked = {
            "names": [row[name] for row in page],
            "thumbprints": [row["thumbprint"] for row in page if len(row["thumbprint"] or "") == _SHA256_DIGITS],
        }
        over = _standing(client, asked)
        for row in page:
            is_over = row[name] in over["names"] or row["thumbprint"] in over["thumbprints"]
            yield row | {state: REVOKED} if is_over else row


def print_revocation_notices(client: OperatorClient, *names: str) -> None:
    """Print a notice for each name that was revoked as lost: it stays blocked until it is released."""
    over = _standing(client, {"names": list(names), "thumbprints": []})["names"]
    for name in dict.fromkeys(name for name in names if name in over):
        word = f"-- {shell_word(name)}" if name.startswith("-") else shell_word(name)
        release = f"`birthmark pki release {word}`"
        typer.echo(printable(f"'{name}' was revoked as lost and stays blocked. To release it: {release}"), err=True)


def _standing(client: OperatorClient, values: dict[str, Any]) -> dict[str, Any]:
    try:
        over: dict[str, Any] = client.post("/inventory/standing", values)
    except ForbiddenError:
        return {"names": [], "thumbprints": []}
    return over
