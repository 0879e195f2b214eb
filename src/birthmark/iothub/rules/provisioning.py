"""May a provisioning service write this identity? Only the one whose registration made it."""

from birthmark.errors import ForbiddenError
from birthmark.iothub.model import Device


class DeviceHeldError(ForbiddenError):
    """The device belongs to somebody else."""

    code = "iothub.device_held"
    cause = "Device {device_id} of hub {hub} was put on record by {holder}; {asked} may not take it over."
    fix = "If that is wanted, remove it first: `birthmark hub device rm {device_id} --hub {hub} --yes`."
    asked: str
    device_id: str
    holder: str
    hub: str


def check_maker(present: Device, maker: str) -> None:
    """Raise `DeviceHeldError` unless `present` was made by `maker`."""
    if present.maker != maker:
        raise DeviceHeldError(device_id=present.device_id, hub=present.hub, holder=present.maker, asked=maker)
