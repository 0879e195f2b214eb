"""By which certificates a device is on record, in every room and whoever issued them."""

import contextlib

from birthmark.errors import BirthmarkError
from birthmark.iothub.model import DeviceAuthentication
from birthmark.pki.certificates import Thumbprint
from birthmark.server.rooms import Rooms

_SHA256_DIGITS = 64
_MAX_PRINCIPALS = 100


async def presented_by(rooms: Rooms, name: str) -> set[Thumbprint]:
    """Return the thumbprints by which `name` registered, is enrolled, is a hub's device or a thing."""
    found: set[str] = set()
    ids = {name}
    for instance in rooms.instances.all():
        registered = await rooms.registrations.find(instance, name)
        if registered is not None:
            ids.add(registered.device_id)
            found.add("" if registered.thumbprint is None else registered.thumbprint.hex())
        enrolled = await rooms.enrollments.find(instance.id_scope, name, is_group=False)
        x509 = None if enrolled is None else enrolled.attestation.x509
        pair = None if x509 is None else x509.client_certificates
        found |= {entry.info.sha256_thumbprint for entry in (pair.entries() if pair else []) if entry.info}
    for hub in rooms.hubs.all():
        for device_id in ids:
            with contextlib.suppress(BirthmarkError):  # no such device there, or no name that a device has
                found |= _of((await rooms.hubs.device(hub, device_id)).authentication)
    with contextlib.suppress(BirthmarkError):
        page = await rooms.aws.attachments.principals(name, "", _MAX_PRINCIPALS)
        found |= {str(certificate_id) for certificate_id, _ in page.items}
    return {Thumbprint(bytes.fromhex(one)) for one in found if len(one) == _SHA256_DIGITS}


def _of(authentication: DeviceAuthentication) -> set[str]:
    return {one for one in (authentication.primary_thumbprint, authentication.secondary_thumbprint) if one}
