"""By which certificates a device is on record, in every room and whoever issued them."""

import contextlib

from birthmark.dps.model import X509Individual
from birthmark.errors import BirthmarkError
from birthmark.iothub.model import DeviceAuthentication
from birthmark.pki.certificates import Thumbprint
from birthmark.server.rooms import Rooms

_SHA256_BYTES = 32
_MAX_PRINCIPALS = 100


async def presented_by(rooms: Rooms, name: str) -> set[Thumbprint]:
    """Return the thumbprints by which `name` registered, is enrolled, is a hub's device or a thing."""
    found: set[bytes] = set()
    ids = {name}
    for instance in rooms.instances.all():
        registered = await rooms.registrations.find(instance, name)
        if registered is not None:
            ids.add(registered.device_id)
            found.add(registered.thumbprint or b"")
        enrolled = await rooms.enrollments.find(instance.id_scope, name, is_group=False)
        if enrolled is not None and isinstance(enrolled.attestation, X509Individual):
            found |= set(enrolled.attestation.thumbprints)
    for hub in rooms.iothub.hubs.all():
        for device_id in ids:
            with contextlib.suppress(BirthmarkError):  # no such device there, or no name that a device has
                found |= _of((await rooms.iothub.registry.device(hub, device_id)).authentication)
    with contextlib.suppress(BirthmarkError):
        page = await rooms.aws.attachments.principals(name, "", _MAX_PRINCIPALS)
        found |= {bytes.fromhex(certificate_id) for certificate_id, _ in page.items}
    return {Thumbprint(one) for one in found if len(one) == _SHA256_BYTES}


def _of(authentication: DeviceAuthentication) -> set[bytes]:
    return {one for one in (authentication.primary_thumbprint, authentication.secondary_thumbprint) if one}
