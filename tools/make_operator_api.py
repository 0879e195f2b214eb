"""Write docs/reference/operator-api.md and operator-api.json from the operator interface's route table.

python tools/make_operator_api.py
"""

import json
from pathlib import Path
from unittest.mock import MagicMock

import birthmark
from birthmark.operator_api.api_router import EmptyBody, Endpoint
from birthmark.operator_api.openapi import openapi
from birthmark.server.dispatcher import Applications

TARGET = Path(birthmark.__file__).parents[2] / "docs" / "reference" / "operator-api.md"
HEAD = """# Operator interface

What one does in a portal, and what the commands `device`, `pki`, `dps`, `hub`, `aws`, `user`, `server audit` and `why`
ask: JSON under `/operator/v1`, on the health port, which is loopback only, and by TLS on the console port. A call
carries the token of a [person](../howto/people.md), or on the machine itself that of the data directory, which may do
everything; each route says which right it takes, at its hub, provisioning service or account, or else at `server`.
`none` is for whoever is known. `/operator/v1/openapi.json` is the whole in OpenAPI 3.1.

```sh
sed 's/^/Authorization: Bearer /' "$BIRTHMARK_DATA/operator.token" | curl -sS -H @- http://127.0.0.1:8080/operator/v1/hubs
```

A list is `{"items": [...], "next": ...}`; where `next` is not null, the same route with `after` set to it has the page
that follows, also behind one that is short or empty, as those of `/devices` in a state may be. `/audit/latest` goes
back in time: there it is `before`, which at `/refusals` is the `id` of the last one that was seen. `stream` and
`monitor` answer line by line, as things come: objects with `items`, of which there are none in a sign of life, and
`{"end": true}` or `{"problem": ...}` at the end; who sees neither was cut off. A refusal is a problem document
(RFC 9457) with `code` and `fix`.

What changes something takes an `Idempotency-Key`: a name that a program chose for this one request, such as what
`uuidgen` prints. Sent again within a day by the same token, it gets the same answer, marked
`Idempotency-Replayed: true`, and nothing is done twice; an answer of over 16 KiB is not kept. A key that came with
another request is refused (422); while the first is being carried out, and where nobody knows how it ended, the answer
is 409 and says which. Answers to GET have an `ETag` for `If-None-Match`; `If-Match` is refused.

This page is written by `tools/make_operator_api.py`.

| route | right | what it does | body | query |
|---|---|---|---|---|
"""


def table() -> list[Endpoint]:
    """Return every route; nothing behind them is asked."""
    doors = Applications(MagicMock(), MagicMock(), MagicMock(), MagicMock())
    return doors.operator_table(b"", b"", MagicMock(), MagicMock())


def fields(kind: type) -> str:
    """Return the fields of a body or query."""
    return ", ".join(f"`{name}`" for name in kind.__struct_fields__) if kind is not EmptyBody else ""


def page() -> str:
    """Return the page."""
    rows = [
        f"| {one.method} `{one.template}` | {one.right.value if one.right else 'none'} | {one.summary} "
        f"| {fields(one.body)} | {fields(one.query)} |"
        for one in sorted(table(), key=lambda one: (one.template, one.method))
    ]
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    TARGET.write_text(page())
    print(f"{len(openapi(table())['paths'])} paths, {len(json.dumps(openapi(table())))} bytes of OpenAPI")
