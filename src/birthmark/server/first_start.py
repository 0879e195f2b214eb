"""What the first start puts on record: a hub, a provisioning service linked to it, an access key.

No EST user: a password that any device could use for any name is made by an operator's own word only.
"""

from birthmark.awsiot.model import AccessKey
from birthmark.server.rooms import Rooms
from birthmark.server.settings import Settings

DEFAULT = "birthmark"
_ACTOR = "first-start"


async def ensure_defaults(rooms: Rooms, settings: Settings, *, names_it: bool) -> AccessKey:
    """Make what is not there yet; a later start finds it. Return the key that `birthmark env` prints.

    Of several machines one `names_it`: another's host changes nothing.
    """
    if names_it:
        await _follow_host(rooms, settings.host_name)
    if not rooms.iothub.hubs.all():
        await rooms.iothub.hubs.create(DEFAULT, settings.host_name, actor=_ACTOR)
    if not rooms.instances.all():
        await rooms.instances.create(DEFAULT, settings.host_name, actor=_ACTOR)
        await rooms.instances.link(DEFAULT, rooms.iothub.hubs.by_name(DEFAULT).host, actor=_ACTOR)
    present = rooms.aws.keys.all()
    usual = next((key for key in present if key.policy is None), None)
    return usual or await rooms.aws.keys.add(_ACTOR, actor=_ACTOR)


async def _follow_host(rooms: Rooms, host: str) -> None:
    """Name hub and provisioning service anew when the server is started for another host before anybody used them.

    Later their name is in devices, and a start for another host only warns.
    """
    if [one.name for one in rooms.iothub.hubs.all()] != [DEFAULT] or [one.name for one in rooms.instances.all()] != [
        DEFAULT
    ]:
        return
    hub, instance = rooms.iothub.hubs.by_name(DEFAULT), rooms.instances.by_name(DEFAULT)
    if hub.host == instance.host == host or await rooms.iothub.registry.count(hub) != (0, 0):
        return
    for is_group in (False, True):
        if await rooms.enrollments.page(instance.id_scope, is_group=is_group, after="", limit=1):
            return
    await rooms.instances.move(DEFAULT, host, host, actor=_ACTOR)
    await rooms.iothub.hubs.delete(DEFAULT, actor=_ACTOR)
    await rooms.iothub.hubs.create(DEFAULT, host, actor=_ACTOR)
