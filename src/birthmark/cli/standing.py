"""Lists of devices say of each that was taken back that it was, whatever else is on record of it."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from birthmark.console.client import OperatorClient

_PAGE = 500
_SHA256_DIGITS = 64
REVOKED = "revoked"


def with_standing(
    rows: Iterable[dict[str, Any]], client: OperatorClient, *, name: str, state: str
) -> Iterator[dict[str, Any]]:
    """Yield rows with the state `revoked` where the device, or the certificate it is known by, was taken back."""
    coming = iter(rows)
    while page := list(islice(coming, _PAGE)):
        asked = {
            "names": [row[name] for row in page],
            "thumbprints": [row["thumbprint"] for row in page if len(row["thumbprint"] or "") == _SHA256_DIGITS],
        }
        over = client.post("/inventory/standing", asked)
        for row in page:
            is_over = row[name] in over["names"] or row["thumbprint"] in over["thumbprints"]
            yield row | {state: REVOKED} if is_over else row
