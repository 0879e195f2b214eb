"""Twin queries by index, page by page, with bounded reads.

A page starts after the last device of the previous one. Its continuation token names that device, the query, and the
number of remaining rows. A token is rejected with a different query.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from birthmark.clock_and_entropy import Clock
from birthmark.documents.queries import DocumentQuery, paths_of
from birthmark.documents.query_evaluator import MAX_GROUPS, GroupedRows, TooManyGroupsProblem, row_of
from birthmark.errors import InvalidRequestError
from birthmark.iothub.model import Hub
from birthmark.iothub.ports import DevicePresence
from birthmark.iothub.rules.twin_query_plans import DEVICES, JOBS, MODULES, read_query
from birthmark.iothub.service.c2d import CloudToDevice
from birthmark.iothub.service.registry import Registry
from birthmark.iothub.service.scheduled_jobs import JobDeviceSource
from birthmark.iothub.service.twin_search import (
    EACH,
    EXTRAS,
    MAX_READ,
    Candidate,
    FullScanSource,
    QueryTooBroadError,
    TwinSearch,
    TwinSource,
    are_whole,
    extras_of,
    modules_of,
)
from birthmark.net.fair_scheduler import collect_page, iterate_async, wait_for_caller_turn, yield_turn
from birthmark.store import Database
from birthmark.untrusted_json_and_text import decode_json, whole_number

DEFAULT_PAGE, MAX_PAGE = 100, 1000
MAX_PAGE_BYTES = 1024 * 1024
"""Maximum stored size of a page's twins; a larger page ends early."""
RAW = "Raw"
_ITEM_TYPES = {DEVICES: "Twin", MODULES: "Twin", JOBS: "DeviceJob"}
_NO_MARKER = "the marker was not returned with a page"


class QueryMarkerError(InvalidRequestError):
    """The continuation token does not belong to this query."""

    code = "iothub.query_marker_invalid"
    message = "The query cannot be continued: {detail}"
    fix = (
        "Send the x-ms-continuation header back unchanged, with the same query. To start again: `birthmark hub query "
        "'SELECT * FROM devices'`"
    )
    detail: str


class _Marker(msgspec.Struct, array_like=True):
    """End of a page: after a device, or after a number of aggregated rows."""

    asked: str
    after: str
    left: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Maximum number of remaining rows."""


_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class QueryResult:
    """A page of a query: complete documents or selected rows, and the continuation token."""

    rows: Sequence[dict[str, Any]]
    item_type: str
    """Type of the rows, as in the header `x-ms-item-type`."""
    marker: str | None


class HubQueries:
    """Queries of all hubs."""

    def __init__(self, database: Database, clock: Clock, registry: Registry, c2d: CloudToDevice) -> None:
        self.finding = TwinSearch(database, clock, c2d)
        self._registry = registry
        self.sources: dict[str, TwinSource] = {
            DEVICES: self.finding,
            MODULES: FullScanSource(modules_of(database), clock),
            JOBS: JobDeviceSource(database, clock),
        }
        """Sources of a query by collection. Modules are few and are scanned."""

    async def answer(self, hub: Hub, text: str, marker: str | None, size: int, presence: DevicePresence) -> QueryResult:
        """Return a page of query results.

        Raise `HubQueryInvalidError`, `QueryTooBroadError`, `IndexBehindError` or `QueryMarkerError`.
        """
        await wait_for_caller_turn()
        query = read_query(text)
        asked = hashlib.sha256(f"{hub.name}\0{text}".encode()).hexdigest()[:16]
        known = _Marker(asked, "", query.top) if not marker else _read_marker(marker, asked)
        size = size if known.left is None else min(size, known.left)
        if query.is_summed:
            return await self._aggregate_page(hub, query, known, size, presence)
        found, is_last = await self._page(hub, query, known.after, size, presence)
        rows = await self._rows(hub, query, found, presence)
        found, is_last = found[: len(rows)], is_last and len(rows) == len(found)
        left = None if known.left is None else known.left - len(found)
        following = None
        if not is_last and left != 0:
            following = _text_of(msgspec.structs.replace(known, after=found[-1].key, left=left))
        return QueryResult(rows, RAW if query.items else _ITEM_TYPES[query.collection], following)

    async def _page(
        self, hub: Hub, query: DocumentQuery, after: str, size: int, presence: DevicePresence
    ) -> tuple[Sequence[Candidate], bool]:
        """Return a page of matches, shortened if they are large, and whether it is the last."""
        found: list[Candidate] = []
        kept = 0
        async for one in self.sources[query.collection].find_matches(hub, query.where, after, size, presence):
            if len(found) == size or (found and kept > MAX_PAGE_BYTES):
                return found, False
            found.append(one)
            kept += one.size
        return found, True

    async def _rows(
        self, hub: Hub, query: DocumentQuery, candidates: Sequence[Candidate], presence: DevicePresence
    ) -> Sequence[dict[str, Any]]:
        paths = [item.path for item in query.items if item.path is not None]
        await self.sources[query.collection].load_extras(
            hub, candidates, EXTRAS if not query.items else extras_of(paths), presence
        )
        is_whole = not query.items or are_whole(paths)
        documents = (one.document(is_whole=is_whole) for one in candidates)
        return await _fitting(row_of(query, one) if query.items else one for one in documents)

    async def _aggregate_page(
        self, hub: Hub, query: DocumentQuery, marker: _Marker, size: int, presence: DevicePresence
    ) -> QueryResult:
        """Return aggregated rows, starting after those counted in the continuation token."""
        is_of_all = query.collection == DEVICES and query.where is None and not query.group_by
        if is_of_all and all(item.path is None for item in query.items):
            total, _ = await self._registry.count(hub)
            return QueryResult([{item.name: total for item in query.items}], RAW, None)
        summing, paths = GroupedRows(query), list(paths_of(query))
        extras, is_whole = extras_of(paths), are_whole(paths)
        some: list[Candidate] = []

        async def add() -> None:
            await self.sources[query.collection].load_extras(hub, some, extras, presence)
            for one in some:
                summing.add(one.document(is_whole=is_whole))
                await yield_turn()
            some.clear()

        try:
            async for one in self.sources[query.collection].find_matches(hub, query.where, "", MAX_READ, presence):
                some.append(one)
                if len(some) == EACH:
                    await add()
            await add()
        except TooManyGroupsProblem as problem:
            detail = "it makes more groups than that, or they are too large"
            raise QueryTooBroadError(limit=MAX_GROUPS, detail=detail) from problem
        rows, first = summing.rows(), whole_number(marker.after or "0")
        if first is None:
            raise QueryMarkerError(detail=_NO_MARKER)
        page = await _fitting(rows[first : first + size])
        left = None if marker.left is None else marker.left - len(page)
        is_more = len(rows) > first + len(page) and left != 0
        following = msgspec.structs.replace(marker, after=str(first + len(page)), left=left)
        return QueryResult(page, RAW, _text_of(following) if is_more else None)


async def _fitting(rows: Iterable[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    return await collect_page(iterate_async(rows), lambda row: len(_encode(row)), MAX_PAGE_BYTES)


def _text_of(marker: _Marker) -> str:
    return base64.urlsafe_b64encode(_encode(marker)).decode()


def _read_marker(text: str, query: str) -> _Marker:
    try:
        marker = decode_json(base64.urlsafe_b64decode(text.encode()), _Marker)
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise QueryMarkerError(detail=_NO_MARKER) from error
    if marker.asked != query:
        raise QueryMarkerError(detail="the marker is one of another query")
    return marker
