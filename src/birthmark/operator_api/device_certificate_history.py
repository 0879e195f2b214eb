"""Certificate history of a device at its hub, with time and actor, from the audit log."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from birthmark.audit.queries import AuditQuery, latest
from birthmark.auth.permission_statements import Right
from birthmark.iothub.model import Device, Identity
from birthmark.iothub.service import IotHub
from birthmark.operator_api.api_router import ApiRequest, Endpoint, Rows
from birthmark.store import Database

_HOW: Mapping[str, str] = {
    "iothub.device_put": "put on record",
    "iothub.module_put": "put on record",
    "dps.register": "registered",
    "iothub.credential_issue": "issued",
    "iothub.credential_use": "used first",
}
_PAGE, _MOST_ROWS = 250, 1000
_REGISTRATION, _REGISTER = "dps:", "dps.register"


def endpoints(iothub: IotHub, database: Database) -> Sequence[Endpoint]:
    """Return the route of `birthmark hub device thumbprints`."""

    async def listing(request: ApiRequest) -> Rows:
        hub = iothub.hubs.by_name(request["name"])
        identity = await iothub.registry.identity(hub, request["device"])
        told = [row for name in _names_of(identity) for row in await _told_of(database, name)]
        return Rows(history(identity, hub.host, told))

    path, about = "/hubs/{name}/thumbprints/{device:path}", "The certificates by which a device was known."
    return [Endpoint("GET", path, Right.READ, about, listing)]


def history(identity: Identity, host: str, told: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Return every certificate that was valid, the latest first; current ones are marked."""
    proof = identity.authentication
    slots = ((proof.primary_thumbprint, "primary"), (proof.secondary_thumbprint, "secondary"))
    now = {print_.hex(): name for print_, name in reversed(slots) if print_ is not None}
    is_issued = any("issued" in row["detail"] for row in told)
    rows = [
        {"at": row["at"], "thumbprint": one, "how": how, "now": now.get(one), "by": row["actor"]}
        for row in sorted(told, key=lambda row: str(row["at"]), reverse=True)
        if row["action"] == _REGISTER or row["detail"].get("hub") in {identity.hub, host}
        for one, how in _prints_of(row, is_issued=is_issued)
    ]
    known = {row["thumbprint"] for row in rows}
    unsaid = [
        {"at": None, "thumbprint": one, "how": "before this was written down", "now": name, "by": None}
        for one, name in now.items()
        if one not in known
    ]
    return [*rows, *unsaid]


def _prints_of(row: Mapping[str, Any], *, is_issued: bool) -> Iterator[tuple[str, str]]:
    """Yield thumbprints with their origin.

    The hub does not know the first certificate of a device that is issued its own.
    """
    detail, how = row["detail"], _HOW[row["action"]]
    if (fresh := detail.get("issued")) is not None:
        yield str(fresh), "issued as it registered"
    if (one := detail.get("thumbprint")) is not None and not (is_issued and row["action"] == _REGISTER):
        yield str(one), how
    for one in detail.get("thumbprints") or ():
        yield str(one), how


def _names_of(identity: Identity) -> Sequence[str]:
    """Return the names of an identity in the audit log: its own and that of its registration."""
    names = {identity.name: None}
    if isinstance(identity, Device) and identity.maker.startswith(_REGISTRATION):
        names[identity.maker.rpartition("/")[2]] = None
    return tuple(names)


async def _told_of(database: Database, name: str) -> Sequence[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    before, looked = "", 0
    while looked < _MOST_ROWS:
        page = await latest(database, AuditQuery(subject=name), before=before, limit=_PAGE)
        found += [row for row in page.items if row["action"] in _HOW]
        looked += len(page.items)
        if page.last is None:
            break
        before = page.last
    return found
