"""Operator API of counters and their verification."""

from collections.abc import Awaitable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Protocol

import msgspec

from birthmark.auth.permission_statements import Right
from birthmark.clock_and_entropy import Clock
from birthmark.operator_api.api_router import ApiRequest, Endpoint, Rows
from birthmark.store import from_micros, to_micros
from birthmark.store.object_counters import CounterMismatch, StoredCounter


class CounterSource(Protocol):
    """Source of counters."""

    def read(self, name: str, since: int = 0) -> Awaitable[Sequence[StoredCounter]]: ...

    def prove(self) -> Awaitable[Sequence[CounterMismatch]]: ...


class FigureQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Period in seconds for hourly and weekly counters; default: one day."""

    back_s: Annotated[int, msgspec.Meta(ge=0, le=10**9)] = 86_400


def figure_endpoints(source: CounterSource, periods: Mapping[str, int], clock: Clock) -> Sequence[Endpoint]:
    """Return the routes of `birthmark server counters`."""

    async def listing(request: ApiRequest) -> Rows:
        begin = to_micros(clock.now() - timedelta(seconds=request.query.back_s))
        found = [one for name, of in periods.items() for one in await source.read(name, begin - of if of else 0)]
        return Rows([view(one) for one in found], None)

    async def prove(_asked: ApiRequest) -> Any:
        wrong = [{**view(one.counted), "found": one.found} for one in await source.prove()]
        return {"is_proven": not wrong, "differs": wrong}

    return [
        Endpoint("GET", "/figures", Right.READ, "List counters.", listing, query=FigureQuery),
        Endpoint("POST", "/figures/prove", Right.READ, "Verify the counters with a scan.", prove),
    ]


def view(figure: StoredCounter) -> dict[str, Any]:
    """Return the view of a counter: `since` is null for a current value."""
    since: datetime | None = from_micros(figure.since) if figure.since else None
    return {
        "what": figure.name,
        "at": figure.place,
        "state": figure.state,
        "since": None if since is None else since.isoformat(),
        "count": figure.value,
    }
