"""What the first start puts on record: a hub, a provisioning service linked to it, an access key.

No EST user: a password that any device could use for any name is made by an operator's own word only.
"""

from birthmark.awsiot.model import AccessKey
from birthmark.server.rooms import Rooms
from birthmark.server.settings import Settings

DEFAULT = "birthmark"
_ACTOR = "first-start"


async def ensure_defaults(rooms: Rooms, settings: Settings) -> AccessKey:
    """Make what is not there yet; a later start finds it. Return the key that `birthmark env` prints."""
    if not rooms.hubs.all():
        await rooms.hubs.create(DEFAULT, settings.host_name, actor=_ACTOR)
    if not rooms.instances.all():
        await rooms.instances.create(DEFAULT, settings.host_name, actor=_ACTOR)
        await rooms.instances.link(DEFAULT, rooms.hubs.by_name(DEFAULT).host, actor=_ACTOR)
    present = rooms.aws.keys.all()
    return present[0] if present else await rooms.aws.keys.add(_ACTOR, actor=_ACTOR)
