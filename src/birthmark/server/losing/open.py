"""A device's open connections, at this worker and at the others."""

from collections.abc import Iterable, Mapping, Sequence

from birthmark.bus import Bus
from birthmark.bus.ports import Reply, Request
from birthmark.net.admission import Closed
from birthmark.net.pump import MqttPump
from birthmark.pki.certificates import Thumbprint
from birthmark.server.rooms import Rooms

Place = tuple[str, str]
"""Where it is connected, and from which address."""


class OpenThere(Reply, frozen=True, tag="server.open_there"):
    """Places with how many connections there were."""

    places: tuple[tuple[str, str, int], ...]


class AskOpen(Request[OpenThere], frozen=True, tag="server.ask_open"):
    """Say which connections of a device are open: of these names at a hub, or by these certificates. End them."""

    names: tuple[str, ...]
    certificates: tuple[str, ...]
    ends: bool = False


def open_here(rooms: Rooms, names: Iterable[str], certificates: Iterable[Thumbprint]) -> Mapping[Place, list[MqttPump]]:
    """Return the connections to this worker."""
    found: dict[Place, list[MqttPump]] = {}
    known, named = set(certificates), set(names)

    def is_its(pump: MqttPump) -> bool:
        leaf = pump.peer.leaf
        return leaf is not None and leaf.thumbprint in known

    for hub in rooms.hub_connections.everyone():
        if hub.device_id in named or is_its(hub.pump):
            found.setdefault((f"hub {hub.hub.name}", hub.pump.address), []).append(hub.pump)
    for room, place in ((rooms.aws_connections, "aws"), (rooms.dps_connections, "dps")):
        for one in room.everyone():
            if is_its(one.pump):
                found.setdefault((place, one.pump.address), []).append(one.pump)
    return found


def end(pumps: Sequence[MqttPump]) -> None:
    """End connections; what was taken back before has ended some already."""
    for pump in pumps:
        if not pump.is_over:
            pump.close(Closed.ADMINISTRATIVE)


async def open_elsewhere(rooms: Rooms, names: Iterable[str], certificates: Iterable[Thumbprint]) -> Mapping[Place, int]:
    """Return how many there are at other workers; of one that does not answer, none."""
    found: dict[Place, int] = {}
    asked = AskOpen(tuple(sorted(names)), tuple(sorted(one.hex() for one in certificates)))
    for answer in await rooms.broker.ask_others(asked):
        for place, address, count in answer.places:
            found[place, address] = found.get((place, address), 0) + count
    return found


async def end_everywhere(rooms: Rooms, names: Iterable[str], certificates: Iterable[Thumbprint]) -> None:
    """End all of them."""
    for pumps in open_here(rooms, names, certificates).values():
        end(pumps)
    asked = AskOpen(tuple(sorted(names)), tuple(sorted(one.hex() for one in certificates)), ends=True)
    await rooms.broker.ask_others(asked)


def answer_others(bus: Bus, rooms: Rooms) -> None:
    """Let other workers ask for what is open here."""

    async def answer(asked: AskOpen) -> OpenThere:
        found = open_here(rooms, asked.names, [Thumbprint(bytes.fromhex(one)) for one in asked.certificates])
        if asked.ends:
            for pumps in found.values():
                end(pumps)
        return OpenThere(tuple([(place, address, len(pumps)) for (place, address), pumps in found.items()]))

    bus.serve(AskOpen, answer)
