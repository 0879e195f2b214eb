"""Rule of identity ownership: whether a registration may overwrite a device identity.

IoT Hub lets any registration of its provisioning services replace the credentials of a device of that name. Here, a
group's CA cannot replace the credentials of a device that it did not register (ADR 9).
"""

from collections.abc import Collection

from birthmark.errors import ForbiddenError
from birthmark.iothub.model import OPERATOR, Device


class DeviceHeldError(ForbiddenError):
    """The device belongs to another identity."""

    code = "iothub.device_held"
    cause = (
        "Device {device_id} of hub {hub} was created by {holder}, and no credential of {asked} is registered for it."
    )
    fix = (
        "If both identities are the same device, enroll the device with its own certificate, which keeps the device "
        'and its twin: `birthmark device enroll --cert "$X509_CERT_FILE"{options}`. Otherwise, delete the device: '
        "`birthmark hub device rm {device_id} --hub {hub} --yes`."
    )
    asked: str
    device_id: str
    holder: str
    hub: str
    options: str = ""
    """Command option that selects the provisioning service, where it is not the first."""


def check_holder(present: Device, maker: str, proved: Collection[bytes] = (), *, is_individual: bool = False) -> None:
    """Raise `DeviceHeldError` unless the registration `maker` may replace the credentials of `present`.

    It may where it created the device, or where the device has `proved` itself with a credential of the hub. With an
    individual enrollment it also may where an operator created the device, or the registration of the same id at
    another provisioning service.
    """
    holder = present.maker
    if holder == maker or not present.authentication.credentials.isdisjoint(proved):
        return
    if is_individual and (holder == OPERATOR or holder.partition("/")[2] == maker.partition("/")[2]):
        return
    raise DeviceHeldError(device_id=present.device_id, hub=present.hub, holder=holder, asked=maker)
