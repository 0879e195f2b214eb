"""One device that sends as fast as it can what it may send, or may not: nobody else waits for it.

How long a witness waits is measured in work: how much of the flood the server took while the witness waited its turn.
`scripts/soak floods` measures it in milliseconds, on a machine that does nothing else.
"""

from collections.abc import Iterator

import pytest

from flood_world import FloodWorld, a_world
from floods import KINDS, a_flood, witness

pytestmark = pytest.mark.system
MAX_FLOODED_BYTES = 4 * 1024 * 1024
"""What both kernels hold of a connection, and what the server takes in a few of its turns."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FloodWorld]:
    with a_world(tmp_path_factory.mktemp("floods")) as made:
        yield made


WAYS = [
    (kind, way)
    for kind, (cloud, _) in KINDS.items()
    for way in ("a record each", "many in a record", "WebSocket")
    if cloud != "http" or way != "WebSocket"
]


@pytest.mark.parametrize(("kind", "way"), WAYS, ids=[f"{kind}, {way}" for kind, way in WAYS])
def test_others_have_their_turn_beside_a_flood_of(world: FloodWorld, kind: str, way: str) -> None:
    visit = world.flooder(kind, over_websocket=way == "WebSocket")
    with a_flood(visit, kind, many_in_one=way == "many in a record") as flood:
        waits = witness(world.witness, flood, times=8)
    assert sorted(waits.flooded)[-2] < MAX_FLOODED_BYTES, f"{waits.worst:.1f} s at worst"


def test_the_flood_is_one(world: FloodWorld) -> None:
    """Without which the others would show nothing."""
    kind = "messages of QoS 0"
    with a_flood(world.flooder(kind), kind, many_in_one=False) as flood:
        before = flood.sent()
        while flood.sent() < before + 2 * MAX_FLOODED_BYTES:
            pass
