"""The operator interface of devices across all clouds: list, show, count and revoke."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any

import msgspec

from birthmark.auth.permission_statements import Right
from birthmark.devices.device_directory import DeviceDirectory
from birthmark.devices.model import DeviceFilter, DeviceOrder, DeviceState, IsVisible, ListedDevice
from birthmark.devices.revocation import DeviceRevoker
from birthmark.devices.search import DeviceSearch
from birthmark.operator_api.api_router import ApiRequest, Endpoint, Rows
from birthmark.operator_api.name_validation import OperatorRequestError
from birthmark.pki.crl_encoder import RevocationReason


class FindQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Device filter: prefix of a word, scope, state, and the time limit of `ending`."""

    begin: Annotated[str, msgspec.Meta(max_length=256)] = ""
    at: Annotated[str, msgspec.Meta(max_length=256)] = ""
    state: DeviceState | None = None
    ending_s: Annotated[int, msgspec.Meta(ge=1, le=10**10)] = 30 * 86_400
    order: DeviceOrder = DeviceOrder.NAME
    after: Annotated[str, msgspec.Meta(max_length=2048)] = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100

    @property
    def wanted(self) -> DeviceFilter:
        """Return the filter and sort order."""
        return DeviceFilter(self.begin, self.at, self.state, timedelta(seconds=self.ending_s), self.order)


class LossQuestion(msgspec.Struct):
    """Revocation of a device: reason; `dry_run` changes nothing, `block` also blocks an unregistered name."""

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


def _row(device: ListedDevice) -> Mapping[str, Any]:
    """Return a device as a list row; `at` is its first scope."""
    return {
        "name": device.name,
        "at": device.scopes[0] if device.scopes else "",
        "state": device.states[0] if device.states else "",
        "states": list(device.states),
        "last_seen": device.last_seen and device.last_seen.isoformat(),
        "ends": device.ends and device.ends.isoformat(),
        "places": list(device.scopes),
        "tags": list(device.tags),
    }


def _sees(request: ApiRequest) -> IsVisible:
    return lambda scope: request.caller.rights.allow(Right.READ, scope)


def device_endpoints(directory: DeviceDirectory, search: DeviceSearch) -> Sequence[Endpoint]:
    """Return the routes of `birthmark device find`, `show` and `revoke`."""

    async def listing(request: ApiRequest) -> Rows:
        query: FindQuery = request.query
        page = await search.find(query.wanted, query.after, query.limit, sees=_sees(request))
        return Rows([_row(one) for one in page.items], page.next)

    async def number(request: ApiRequest) -> Rows:
        query: FindQuery = request.query
        count = await search.count(query.wanted, sees=_sees(request))
        told = {"count": None, "is_more": True} if count is None else asdict(count)
        return Rows([{"at": query.at, **told}])

    async def show(request: ApiRequest) -> Any:
        return [asdict(one) for one in await directory.show(request["name"], sees=_sees(request))]

    async def counts(request: ApiRequest) -> Rows:
        return Rows([asdict(one) for one in await directory.counts(sees=_sees(request))])

    async def revoke(request: ApiRequest) -> Any:
        body: LossQuestion = request.body
        done = await DeviceRevoker(directory).revoke(
            request["name"],
            request.principal,
            reason_of(body.reason),
            may=lambda scope: request.caller.rights.allow(Right.REVOKE, scope),
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
