"""May a registration write this identity? The one that made it, an operator's for this name, and the device itself.

IoT Hub lets every registration of its provisioning services replace the credentials of a device of that name. Here a
certificate authority of a group does not decide about a device that it did not register (ADR 9).
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
        "If it is the same device, enroll it with its own certificate, which keeps the device and its twin: "
        '`birthmark device enroll --cert "$X509_CERT_FILE"{options}`. Otherwise delete the device: `birthmark hub '
        "device rm {device_id} --hub {hub} --yes`."
    )
    asked: str
    device_id: str
    holder: str
    hub: str
    options: str = ""
    """Which provisioning service it is, where that is not the first."""


def check_holder(present: Device, maker: str, proved: Collection[bytes] = (), *, is_individual: bool = False) -> None:
    """Raise `DeviceHeldError` unless the registration `maker` may replace the credentials of `present`.

    It may where it made the device; where the device has `proved` itself by a credential that the hub has; and with an
    individual enrollment, which an operator wrote for this very name, where an operator or the registration of the same
    id at another provisioning service made it.
    """
    holder = present.maker
    if holder == maker or not present.authentication.credentials.isdisjoint(proved):
        return
    if is_individual and (holder == OPERATOR or holder.partition("/")[2] == maker.partition("/")[2]):
        return
    raise DeviceHeldError(device_id=present.device_id, hub=present.hub, holder=holder, asked=maker)
