"""Where people have roles: the hubs and provisioning services there are, and that roles end with them."""

from dataclasses import dataclass

from birthmark.dps.service import Instances
from birthmark.iothub.service import Hubs
from birthmark.people.places import PlaceMissingError
from birthmark.people.service import People
from birthmark.store import Changes

_MAX_SHOWN = 80


@dataclass(frozen=True, slots=True)
class _Places:
    hubs: Hubs
    instances: Instances

    def counting_on(self, place: str) -> Changes:
        kind, _, name = place.partition("/")
        if not name:
            return Changes()  # everywhere, the server and the account are always there
        missing = PlaceMissingError(place=place[:_MAX_SHOWN])
        return (self.hubs if kind == "hub" else self.instances).counting_on(name, missing)


def let_roles_end(people: People, hubs: Hubs, instances: Instances) -> None:
    """Let nobody have a role where nothing is, or after its end."""
    people.places = _Places(hubs, instances)
    hubs.roles = instances.roles = people
