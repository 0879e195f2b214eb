"""Twin requests of a connected device or module."""

from birthmark.documents import Problem
from birthmark.errors import BirthmarkError
from birthmark.iothub import wire
from birthmark.iothub.model import Hub, Identity
from birthmark.iothub.rules.tier_throttles_and_quotas import ThrottleClass
from birthmark.iothub.rules.twins import MAX_PATCH_BYTES, TwinInvalidError
from birthmark.iothub.service import IotHub
from birthmark.untrusted_json_and_text import read_json


async def read_twin(iothub: IotHub, hub: Hub, identity: Identity) -> bytes:
    """Return a device's twin as JSON, within the hub's tier. Raise `BirthmarkError`."""
    iothub.throttles.take(hub, ThrottleClass.TWIN_READ)
    return wire.twin_for_device(await iothub.twins.get(hub, identity.name))


async def report_properties(iothub: IotHub, hub: Hub, identity: Identity, patch: bytes, version: int | None) -> int:
    """Apply a patch of reported properties, and return their new version; `version` is the expected one.

    Raise `TwinInvalidError`, and other `BirthmarkError`.
    """
    iothub.throttles.take(hub, ThrottleClass.TWIN_UPDATE)
    twin = await iothub.twins.report(hub, identity, _patch_of(identity, patch), version)
    return twin.reported.version


def _patch_of(identity: Identity, payload: bytes) -> object:
    def refused(detail: str) -> BirthmarkError:
        return TwinInvalidError(device_id=identity.name, detail=detail)

    if len(payload) > MAX_PATCH_BYTES:
        raise refused(f"reported {Problem.TOO_LARGE.value}")
    return read_json(payload, object, refused)
