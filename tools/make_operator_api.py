"""Write docs/reference/operator-api.md and operator-api.json from the operator interface's route table.

python tools/make_operator_api.py
"""

import json
from pathlib import Path
from unittest.mock import MagicMock

import birthmark
from birthmark.operator_api.api_router import EmptyBody, Endpoint
from birthmark.operator_api.openapi import openapi
from birthmark.server.mqtt_and_http_dispatch import Applications

TARGET = Path(birthmark.__file__).parents[2] / "docs" / "reference" / "operator-api.md"
HEAD = """# Operator interface

This JSON API under `/operator/v1` provides the operations of a cloud portal. The commands `device`, `pki`, `dps`,
`hub`, `aws`, `user`, `server audit`, and `why` use it. `/operator/v1/openapi.json` describes it in OpenAPI 3.1.

| endpoint | token |
|---|---|
| console port, TLS | a [user's](../howto/user-access.md) |
| health port, loopback only | a user's, or the data directory's, which has full access |

Each route requires the listed right, at its hub, provisioning service, or account, otherwise at `server`. `none`
requires only a valid token. To list the hubs:

```sh
sed 's/^/Authorization: Bearer /' "$BIRTHMARK_DATA/operator.token" | curl -sS -H @- http://127.0.0.1:8080/operator/v1/hubs
```

## Lists

A list is `{"items": [...], "next": ...}`. While `next` is not null, request the same route with `after` set to its
value to get the next page. A page can be short or empty and still have a successor, as in `/devices` by state.
`/audit/latest` goes back in time: use `before` instead, at `/refusals` with the `id` of the last row.

## Streams

`stream` and `monitor` return one JSON object per line: an object with `items` (empty in a keep-alive), and finally
`{"end": true}` or `{"problem": ...}`. A stream without a final line was interrupted.

## Errors

An error is a problem document (RFC 9457) with `code` and `fix`.

## Idempotency and caching

Requests that change something accept an `Idempotency-Key`, a unique name for this request, such as the output of
`uuidgen`. If the same token repeats the request within one day, it gets the same response, marked
`Idempotency-Replayed: true`, and the operation is not repeated.

| case | response |
|---|---|
| the response exceeds 16 KiB | is not stored for a repetition |
| the key was used with a different request | 422 |
| the first request is in progress, or its result is unknown | 409 with the reason |

Responses to GET have an `ETag` for `If-None-Match`. `If-Match` is rejected.

## Routes

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
