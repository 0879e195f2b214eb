"""One device that sends as fast as it can what it may send, or may not: nobody else waits for it.

How long a witness waits is measured in work: how much of the flood the server took while the witness waited its turn.
`scripts/soak floods` measures it in milliseconds, on a machine that does nothing else.
"""

import contextlib
import os
import socket
import ssl
import struct
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from fuzz.mutate import tlv
from support.floods.flood_world import FloodWorld, a_world
from support.floods.floods import KINDS, Flood, a_flood, witness
from support.floods.people_floods import Requests, a_people_flood, requests_of
from support.floods.unauthenticated import insecure, read_all, tls
from support.pki.pki_builders import a_key, key_pem

pytestmark = pytest.mark.system
MAX_FLOODED_BYTES = 4 * 1024 * 1024
"""What both kernels hold of a connection, and what the server takes in a few of its turns."""
MAX_REQUESTS = 40
"""Of a person, each of which costs milliseconds, that the server answers while a witness waits."""
TRIES = 6
"""Where the machine gives the witness itself no processor, the flood goes on all the same: not at every try."""


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
        tries = (sorted(witness(world.witness, flood, times=8).flooded)[-2] for _ in range(TRIES))
        assert any(flooded < MAX_FLOODED_BYTES for flooded in tries)


@pytest.fixture(scope="module")
def people(world: FloodWorld) -> Mapping[str, Requests]:
    return requests_of(world.server)


OF_VIEWERS = (
    *("expressions of a viewer", "everyday expressions of a viewer"),
    *("queries of a viewer", "queries of new shapes", "queries that are counted"),
    *("searches of a viewer", "queries of enrollments", "reports of a list with long names"),
)


@pytest.mark.parametrize("kind", OF_VIEWERS)
def test_others_have_their_turn_beside(world: FloodWorld, people: Mapping[str, Requests], kind: str) -> None:
    with a_people_flood(people[kind]) as flood:
        tries = (sorted(witness(world.witness, flood, times=8).flooded)[-2] for _ in range(TRIES))
        assert any(answered < MAX_REQUESTS for answered in tries)


def test_the_flood_is_one(world: FloodWorld) -> None:
    """Without which the others would show nothing."""
    kind = "messages of QoS 0"
    with a_flood(world.flooder(kind), kind, many_in_one=False) as flood:
        before = flood.sent()
        while flood.sent() < before + 2 * MAX_FLOODED_BYTES:
            pass


def waiting_at(address: str, port: int) -> int:
    """Return how many the kernel holds before a listening socket (proc_net_tcp(5))."""
    place = f"{struct.unpack('<I', socket.inet_aton(address))[0]:08X}:{port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    (queues,) = [line[4] for line in lines if line[1] == place and line[3] == "0A"]
    return int(queues.partition(":")[2], 16)


def test_beside_a_flood_the_kernels_queue_of_newcomers_is_emptied(world: FloodWorld) -> None:
    """It knows no shares: whoever fills it by connecting keeps everybody out, by however few connections."""
    kind = "shadows that are too large"
    with a_flood(world.flooder(kind), kind, many_in_one=True) as flood:
        while flood.sent() < 2 * MAX_FLOODED_BYTES:
            pass
        assert any(flooded_beside(500, world.server.address, flood) < 2 * MAX_FLOODED_BYTES for _ in range(TRIES))


def flooded_beside(newcomers: int, address: str, flood: Flood) -> int:
    """Return what is served of a flood until so many who connect at once are let in."""
    with contextlib.ExitStack() as stack:
        for _ in range(newcomers):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex((address, 8883))
        before = flood.sent()
        while waiting_at(address, 8883):
            pass
        return flood.sent() - before


def shown(directory: Path, name: str, *extensions: tuple[str, bytes]) -> ssl.SSLContext:
    """Return what shows a self-signed certificate with these extensions."""
    key, subject, now = a_key(), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]), datetime.now(UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1, now, now + timedelta(days=1))
    for oid, value in extensions:
        builder = builder.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), critical=False)
    made = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
    (directory / f"{name}.pem").write_text(made + key_pem(key))
    context = insecure()
    context.load_cert_chain(directory / f"{name}.pem")
    return context


def cpu_of(world: FloodWorld, context: ssl.SSLContext) -> float:
    """Return the seconds of the processor that the server takes for strangers with a certificate."""

    def taken() -> int:
        fields = Path(f"/proc/{world.server.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = taken()
    for _ in range(40):
        with contextlib.suppress(OSError), tls(world.server, 8883, context) as line:
            line.sendall(b"\x10\x00")
            read_all(line)
    return (taken() - before) / os.sysconf("SC_CLK_TCK")


def test_a_stranger_cannot_show_a_certificate_that_is_dear_to_read(world: FloodWorld, tmp_path: Path) -> None:
    """One object identifier of 30 KiB took a quarter of a second of everybody's time, by the square of its length."""
    dear = tlv(0x30, tlv(0x06, b"\x2a" + b"\xff" * 30_000 + b"\x7f"))
    plain = cpu_of(world, shown(tmp_path, "plain"))
    showing = shown(tmp_path, "dear", ("2.5.29.37", dear))
    taken = [cpu_of(world, showing) for _ in range(3)]  # what others make of a busy processor counts as the server's
    assert min(taken) < 5 * plain + 0.5
