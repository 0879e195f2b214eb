"""Default services of a new server: a hub, a provisioning service and an access key."""

from birthmark.awsiot.model import AccessKey
from birthmark.server.composition_root import ServerServices
from birthmark.server.settings import Settings

DEFAULT = "birthmark"


_ACTOR = "first-start"


async def ensure_defaults(rooms: ServerServices, settings: Settings, *, names_it: bool) -> AccessKey:
    """Create missing defaults: hub, provisioning service and access key; return the key that `birthmark env` prints.

    Of several machines, only one with `names_it` set applies its host name.
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


async def _follow_host(rooms: ServerServices, host: str) -> None:
    """Rename hub and provisioning service if the server is started for another host before they are used.

    Once devices know the names, a start for another host only logs a warning.
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
