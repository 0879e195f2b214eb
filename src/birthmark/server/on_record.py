"""By which certificates a device is on record, in every room and whoever issued them."""

import contextlib

from birthmark.dps.model import X509Individual
from birthmark.errors import BirthmarkError
from birthmark.iothub.model import DeviceAuthentication
from birthmark.pki.certificates import Thumbprint
from birthmark.server.rooms import Rooms

_SHA256_BYTES = 32
_MAX_PRINCIPALS = 100


async def names_of(rooms: Rooms, name: str) -> set[str]:
    """Return the names of a device: its registration ids, and what it is called at hubs."""
    found = {name}
    for hub in rooms.iothub.hubs.all():
        with contextlib.suppress(BirthmarkError):  # no such device there, or no name that a device has
            maker = (await rooms.iothub.registry.device(hub, name)).maker
            found |= {maker.partition("/")[2]} if maker.startswith("dps:") else set()
    for instance in rooms.instances.all():
        for one in tuple(found):
            registered = await rooms.registrations.find(instance, one)
            enrolled = await rooms.enrollments.find(instance.id_scope, one, is_group=False)
            found |= {other.device_id for other in (registered, enrolled) if other is not None and other.device_id}
    return found


async def presented_by(rooms: Rooms, name: str) -> set[Thumbprint]:
    """Return the thumbprints by which `name` registered, is enrolled, is a hub's device or a thing."""
    found: set[bytes] = set()
    names = await names_of(rooms, name)
    for one in names:
        for instance in rooms.instances.all():
            registered = await rooms.registrations.find(instance, one)
            found.add((registered and registered.thumbprint) or b"")
            enrolled = await rooms.enrollments.find(instance.id_scope, one, is_group=False)
            if enrolled is not None and isinstance(enrolled.attestation, X509Individual):
                found |= set(enrolled.attestation.thumbprints)
        for hub in rooms.iothub.hubs.all():
            with contextlib.suppress(BirthmarkError):  # no such device there, or no name that a device has
                found |= _of((await rooms.iothub.registry.device(hub, one)).authentication)
        with contextlib.suppress(BirthmarkError):
            page = await rooms.aws.attachments.principals(one, "", _MAX_PRINCIPALS)
            found |= {bytes.fromhex(certificate_id) for certificate_id, _ in page.items}
    return {Thumbprint(one) for one in found if len(one) == _SHA256_BYTES}


def _of(authentication: DeviceAuthentication) -> set[bytes]:
    return {one for one in (authentication.primary_thumbprint, authentication.secondary_thumbprint) if one}
