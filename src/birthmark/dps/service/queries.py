"""Paged queries of the records at a provisioning service.

A page examines a limited number of records. If few match, it is short but continued: the result is complete when a page
has no marker. Some clients treat an empty page as the end, marker or not. A page without any match is therefore
rejected. A query by ID reads only the named records.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from birthmark.clock_and_entropy import Clock
from birthmark.documents.queries import Condition
from birthmark.documents.query_evaluator import fits
from birthmark.dps import enrollment_document, wire
from birthmark.dps.enrollment_document import EnrollmentDocument
from birthmark.dps.model import Instance, Registration
from birthmark.dps.rules.queries import ID, ids_of, query_view, read_query
from birthmark.dps.service.enrollments import EnrollmentNotFoundError, Enrollments
from birthmark.dps.service.registrations import Registrations
from birthmark.errors import InvalidRequestError
from birthmark.net.fair_scheduler import collect_page, iterate_async, yield_turn

_encode = msgspec.json.Encoder().encode
MAX_READ = 10_000
"""Maximum number of records that a page examines."""
MAX_S = 2.0
"""Seconds after which a page starts no further read."""
_EACH = 100


class QueryTooBroadError(InvalidRequestError):
    """The query found no record within the records that one page reads."""

    code = "dps.query_too_broad"
    for_a_person = "the right condition depends on the purpose of the query"
    message = "None of the first {limit} {kind} match the query"
    fix = "Query by ID, or read all records page by page. List enrollments: `birthmark device ls`"
    kind: str
    limit: int


View: TypeAlias = dict[str, Any]
Some: TypeAlias = Sequence[tuple[str, View | None]]
Read: TypeAlias = Callable[[str, int], Awaitable[Some]]
"""Reads up to the given number of records after an ID; fewer only at the end."""


@dataclass(frozen=True, slots=True)
class EnrollmentPage:
    """A page, and the ID after which the next one starts, if any."""

    rows: Sequence[View]
    after: str | None


class EnrollmentQueries:
    """Paged queries of enrollments and registrations."""

    def __init__(self, enrollments: Enrollments, registrations: Registrations, clock: Clock) -> None:
        self._enrollments = enrollments
        self._registrations = registrations
        self._clock = clock

    async def enrollments(
        self, instance: Instance, text: str, after: str, limit: int, *, is_group: bool, may_enroll: bool = True
    ) -> EnrollmentPage:
        """Return a page of the enrollments that match a query. Raise `QueryInvalidError` or `QueryNotServedError`."""
        kind = "enrollmentGroups" if is_group else "enrollments"
        where = read_query(text, kind)

        async def page(last: str, size: int) -> Some:
            found = await self._enrollments.page(instance.id_scope, is_group=is_group, after=last, limit=size)
            known = {} if is_group or not found else await self._registrations.of_page(instance, last, size)
            views = list[tuple[str, View | None]]()
            for one in found:
                views.append((one.id, view_of(one, known.get(one.id), may_enroll=may_enroll)))
                await yield_turn()
            return views

        async def one(name: str) -> View | None:
            try:
                found = await self._enrollments.document(instance.id_scope, name, is_group=is_group)
            except EnrollmentNotFoundError:
                return None
            registration = None if is_group else await self._registrations.find(instance, found.id)
            return view_of(found, registration, may_enroll=may_enroll)

        return await self._found(_reading(page, one, ids_of(where, ID[kind])), where, kind, after, limit)

    async def registrations(
        self, instance: Instance, group_id: str, text: str, after: str, limit: int
    ) -> EnrollmentPage:
        """Return a page of a group's registrations that match a query.

        Raise `QueryInvalidError` or `QueryNotServedError`.
        """
        where = read_query(text, "registrations")

        async def page(last: str, size: int) -> Some:
            found = await self._registrations.of_group(instance, group_id, last, size)
            return [(one.registration_id, wire.state_json(one)) for one in found]

        async def one(name: str) -> View | None:
            found = await self._registrations.find(instance, name)
            is_of_group = found is not None and found.group_id == group_id.lower()
            return wire.state_json(found) if found is not None and is_of_group else None

        read = _reading(page, one, ids_of(where, ID["registrations"]))
        return await self._found(read, where, "registrations", after, limit)

    async def _found(
        self, read: Read, condition: Condition | None, kind: str, after: str, limit: int
    ) -> EnrollmentPage:
        found: list[tuple[str, View]] = []
        looked_at, began = 0, self._clock.monotonic()
        while len(found) <= limit:  # one beyond the page shows whether it is the last
            size = _EACH if condition is not None else limit + 1 - len(found)
            some = await read(after, size)
            for key, view in some:
                if view is not None and fits(condition, query_view(view, kind)):
                    found.append((key, view))
                await yield_turn()
            if len(some) < size:
                break
            looked_at, after = looked_at + len(some), some[-1][0]
            if looked_at >= MAX_READ or self._clock.monotonic() - began > MAX_S:
                if not found:
                    raise QueryTooBroadError(kind=kind, limit=looked_at)
                return await _page_of(found, limit, after)
        return await _page_of(found, limit, None)


async def _page_of(found: Sequence[tuple[str, View]], limit: int, after: str | None) -> EnrollmentPage:
    """Return a page of the matches; `after` is the marker if the page contains all of them."""
    page = await collect_page(iterate_async(found[:limit]), lambda one: len(_encode(one[1])))
    return EnrollmentPage([view for _, view in page], page[-1][0] if len(page) < len(found) else after)


def view_of(enrollment: EnrollmentDocument, registration: Registration | None, *, may_enroll: bool) -> View:
    """Return an enrollment as the caller may see it; an individual one with its registration state."""
    body = enrollment_document.document_view(enrollment)
    if not may_enroll:
        body = enrollment_document.without_webhook_key(body)
    if not enrollment.is_group:
        if registration is None:
            body["registrationState"] = {"registrationId": enrollment.id, "status": "unassigned"}
        else:
            body["registrationState"] = wire.state_json(registration)
    return body


def _reading(page: Read, one: Callable[[str], Awaitable[View | None]], ids: frozenset[str] | None) -> Read:
    """Return a reader of the next records; with IDs, it reads only those, as pages of them."""
    if ids is None:
        return page

    async def read(after: str, size: int) -> Some:
        following = [name for name in sorted(ids) if name > after]
        return [(name, await one(name)) for name in following[:size]]

    return read
