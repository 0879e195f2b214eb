"""The operator interface of devices across all clouds: list, show, count and revoke."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any

import msgspec

from birthmark.auth.permissions import Right
from birthmark.devices.directory import DeviceDirectory
from birthmark.devices.model import DeviceFilter, DeviceOrder, DeviceState, IsVisible, ListedDevice
from birthmark.devices.revocation import DeviceRevoker
from birthmark.devices.search import DeviceSearch
from birthmark.operator_api.api_router import ApiRequest, Endpoint, Rows
from birthmark.operator_api.name_validation import OperatorRequestError
from birthmark.pki.crl import RevocationReason


class FindQuery(msgspec.Struct, forbid_unknown_fields=True):
    """With what a word of a device begins, at which place it is, and in which state; how soon `ending` is."""

    begin: Annotated[str, msgspec.Meta(max_length=256)] = ""
    at: Annotated[str, msgspec.Meta(max_length=256)] = ""
    state: DeviceState | None = None
    ending_s: Annotated[int, msgspec.Meta(ge=1, le=10**10)] = 30 * 86_400
    order: DeviceOrder = DeviceOrder.NAME
    after: Annotated[str, msgspec.Meta(max_length=2048)] = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100

    @property
    def wanted(self) -> DeviceFilter:
        """Which devices, and in which order."""
        return DeviceFilter(self.begin, self.at, self.state, timedelta(seconds=self.ending_s), self.order)


class LossQuestion(msgspec.Struct):
    """Why it is taken back; `dry_run` changes nothing, `block` shuts out a name of which nothing is on record."""

    reason: str = RevocationReason.KEY_COMPROMISE.value
    dry_run: bool = False
    block: bool = False


def reason_of(text: str) -> RevocationReason:
    """Return the reason. Raise `OperatorRequestError`."""
    try:
        return RevocationReason(text)
    except ValueError as error:
        known = ", ".join(r.value for r in RevocationReason)
        raise OperatorRequestError(detail=f"the reason must be one of {known}") from error


def _row(found: ListedDevice) -> Mapping[str, Any]:
    """Return a device as lists have it; `at` is the first of its places."""
    return {
        "name": found.name,
        "at": found.scopes[0] if found.scopes else "",
        "state": found.states[0] if found.states else "",
        "states": list(found.states),
        "last_seen": found.last_seen and found.last_seen.isoformat(),
        "ends": found.ends and found.ends.isoformat(),
        "places": list(found.scopes),
        "tags": list(found.tags),
    }


def _sees(asked: ApiRequest) -> IsVisible:
    return lambda scope: asked.caller.rights.allow(Right.READ, scope)


def device_endpoints(directory: DeviceDirectory, search: DeviceSearch) -> Sequence[Endpoint]:
    """Return the routes of `birthmark device find`, `show` and `revoke`."""

    async def listing(asked: ApiRequest) -> Rows:
        query: FindQuery = asked.query
        page = await search.find(query.wanted, query.after, query.limit, sees=_sees(asked))
        return Rows([_row(one) for one in page.items], page.next)

    async def number(asked: ApiRequest) -> Rows:
        query: FindQuery = asked.query
        count = await search.count(query.wanted, sees=_sees(asked))
        told = {"count": None, "is_more": True} if count is None else asdict(count)
        return Rows([{"at": query.at, **told}])

    async def show(asked: ApiRequest) -> Any:
        return [asdict(one) for one in await directory.show(asked["name"], sees=_sees(asked))]

    async def counts(asked: ApiRequest) -> Rows:
        return Rows([asdict(one) for one in await directory.counts(sees=_sees(asked))])

    async def revoke(asked: ApiRequest) -> Any:
        body: LossQuestion = asked.body
        done = await DeviceRevoker(directory).revoke(
            asked["name"],
            asked.principal,
            reason_of(body.reason),
            may=lambda scope: asked.caller.rights.allow(Right.REVOKE, scope),
            dry_run=body.dry_run,
            block=body.block,
        )
        return [asdict(one) for one in done]

    one = "Return a device, in all visible scopes."
    counted = "Count the devices of a search, or a lower bound; null if counting would read each device."
    summary = "Search visible devices by the prefix of a word in the name, by scope and by state."
    revoking, path = "Revoke a device: credentials, certificates, enrollments and connections.", "/devices/{name:path}"
    return [
        Endpoint("POST", f"{path}/revoke", Right.REVOKE, revoking, revoke, LossQuestion),
        Endpoint("GET", "/devices", Right.READ, summary, listing, query=FindQuery, rows_at="{at}"),
        Endpoint("GET", "/figures/found", Right.READ, counted, number, query=FindQuery, rows_at="{at}"),
        Endpoint("GET", "/figures/devices", Right.READ, "Count devices by scope.", counts, rows_at="{at}"),
        Endpoint("GET", path, Right.READ, one, show, rows_at="{at}"),
    ]
