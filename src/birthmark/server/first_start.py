"""What the first start puts on record: a hub, a provisioning service linked to it, an access key, an EST user."""

import contextlib
from dataclasses import dataclass, field

from birthmark.auth.principals import Principal, PrincipalKind
from birthmark.awsiot.model import AccessKey
from birthmark.clock import Clock, Entropy
from birthmark.est import users
from birthmark.server.rooms import Rooms
from birthmark.server.settings import Settings

DEFAULT = "birthmark"
_ACTOR = "first-start"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What `birthmark env` prints beside addresses."""

    est_password: str = field(repr=False)
    access_key: AccessKey = field(repr=False)


async def ensure_defaults(
    rooms: Rooms, settings: Settings, est_password: str, clock: Clock, entropy: Entropy
) -> Credentials:
    """Make what is not there yet; a later start finds it."""
    if not rooms.hubs.all():
        await rooms.hubs.create(DEFAULT, settings.host_name, actor=_ACTOR)
    if not rooms.instances.all():
        await rooms.instances.create(DEFAULT, settings.host_name, actor=_ACTOR)
        await rooms.instances.link(DEFAULT, rooms.hubs.by_name(DEFAULT).host, actor=_ACTOR)
    with contextlib.suppress(users.UserExistsError):
        await users.add_user(
            settings.est.user,
            est_password,
            device_id=None,
            principal=Principal(PrincipalKind.OPERATOR, _ACTOR),
            database=rooms.database,
            clock=clock,
            entropy=entropy,
        )
    present = rooms.aws.keys.all()
    key = present[0] if present else await rooms.aws.keys.add(_ACTOR, actor=_ACTOR)
    return Credentials(est_password, key)
