"""Renewals by EST for minutes: each a TLS handshake with a client certificate, and durable before its answer.

python benchmarks/soak_renewals.py [--rate 300] [--seconds 600] [--devices 3000]

They arrive by the clock, whether the server keeps up or not; how long one took counts from its arrival. Prints a line
every ten seconds and one at the end. Exit 1 when one failed, or the server did not keep the pace.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import os
import ssl
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from birthmark.est import wire
from support.pki.pki_builders import a_csr, a_key, key_pem
from support.server.servers import RunningServer, free_address

_PATH = f"{wire.BASE_PATH}/simplereenroll"
_PATIENCE_S = 30.0
_TELL_EVERY_S = 10.0
_PACE = 0.98
"""Of the wanted rate."""


@dataclass(frozen=True, slots=True)
class Device:
    """How it connects, and what it asks for."""

    context: ssl.SSLContext
    csr: bytes


@dataclass
class Told:
    """What came of them."""

    took_s: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    def line(self, elapsed_s: float, server: RunningServer, cpu_s: float) -> dict[str, object]:
        took = sorted(self.took_s)

        def ms(share: float) -> float:
            return round(took[min(int(len(took) * share), len(took) - 1)] * 1000, 1) if took else 0.0

        return {
            "seconds": round(elapsed_s),
            "renewals": len(took),
            "per_s": round(len(took) / elapsed_s, 1),
            "p50_ms": ms(0.5),
            "p99_ms": ms(0.99),
            "max_ms": ms(1.0),
            "failed": sum(self.failures.values()),
            "server_cores": round(cpu_s / elapsed_s, 2),
            "server_mib": round(_resident_mib(server.pid)),
        }


async def ask(server: RunningServer, device: Device, path: str, body: bytes, header: str = "") -> bytes:
    """Ask once, on a connection of its own. Raise `ValueError` for an answer other than 200."""
    reader, writer = await asyncio.open_connection(server.address, 8085, ssl=device.context)
    try:
        head = f"POST {path} HTTP/1.1\r\nHost: {server.address}\r\nContent-Type: {wire.PKCS10}\r\n{header}"
        writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        answer = await reader.read(-1)
    finally:
        writer.close()
    told, _, content = answer.partition(b"\r\n\r\n")
    if b" 200 " not in told.split(b"\r\n", 1)[0]:
        raise ValueError(told.split(b"\r\n", 1)[0].decode() + content[:100].decode(errors="replace"))
    return content


async def enrolled(server: RunningServer, directory: Path, count: int) -> Sequence[Device]:
    """Give each device its first certificate, by a password for any name."""
    made = server.rows("pki", "user", "create", "factory", "--any-name")[0]
    word = base64.b64encode(f"factory:{made['password']}".encode()).decode()
    trust, pem = server.endpoints["trust_bundle"], directory / "device.pem"
    nobody = Device(_context(trust), b"")
    devices, turns = [], asyncio.Semaphore(20)

    async def one(name: str) -> Device:
        key = a_key()
        csr = base64.encodebytes(a_csr(name, key=key))
        async with turns:
            body = await ask(server, nobody, f"{wire.BASE_PATH}/simpleenroll", csr, f"Authorization: Basic {word}\r\n")
        (leaf,) = wire.parse_certs_only(body)
        pem.write_text(leaf.pem() + key_pem(key))
        context = _context(trust)
        context.load_cert_chain(pem)
        return Device(context, csr)

    for first in range(0, count, 200):
        devices += await asyncio.gather(*(one(f"renew-{n}") for n in range(first, min(first + 200, count))))
    return devices


async def renew_all(server: RunningServer, devices: Sequence[Device], rate: float, seconds: float) -> bool:
    """Let renewals arrive; tell of them. Return whether all went well."""
    loop, told, running = asyncio.get_running_loop(), Told(), set[asyncio.Task[None]]()
    started, cpu = loop.time(), _cpu_s(server.pid)

    async def one(device: Device, due: float) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await ask(server, device, _PATH, device.csr)
            told.took_s.append(loop.time() - due)
        except (OSError, ValueError, TimeoutError) as error:
            told.failures[f"{type(error).__name__}: {error}"[:120]] += 1

    tell_at = _TELL_EVERY_S
    for number, device in zip(range(int(rate * seconds)), cycle(devices), strict=False):
        due = started + number / rate
        if (pause := due - loop.time()) > 0:
            await asyncio.sleep(pause)
        task = loop.create_task(one(device, due))
        running.add(task)
        task.add_done_callback(running.discard)
        if (elapsed := loop.time() - started) >= tell_at:
            tell_at += _TELL_EVERY_S
            print(json.dumps(told.line(elapsed, server, _cpu_s(server.pid) - cpu)), flush=True)
    await asyncio.gather(*running)
    elapsed = loop.time() - started
    print(json.dumps({"end": True, **told.line(elapsed, server, _cpu_s(server.pid) - cpu)}), flush=True)
    for failure, times in told.failures.most_common(5):
        print(f"{times} x {failure}", file=sys.stderr)
    return not told.failures and len(told.took_s) / elapsed >= rate * _PACE


def _context(trust: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=trust)
    context.check_hostname = False
    return context


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=300.0, help="renewals a second")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--devices", type=int, default=3000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="birthmark-renewals-") as temporary, contextlib.ExitStack() as ends:
        directory = Path(temporary)
        server = RunningServer(directory / "data", free_address()).start()
        ends.callback(server.stop)
        began = time.monotonic()
        devices = asyncio.run(enrolled(server, directory, given.devices))
        print(json.dumps({"enrolled": len(devices), "seconds": round(time.monotonic() - began, 1)}), flush=True)
        is_good = asyncio.run(renew_all(server, devices, given.rate, given.seconds))
    sys.exit(not is_good)


if __name__ == "__main__":
    main()
