"""Strangers in earnest: memory, tasks and descriptors after 10,000 refusals by each way in, and unfinished bodies.

python benchmarks/soak_strangers.py [--count 10000] [--bodies 300]

Runs a server of its own on a loopback address and ends by itself. A witness connects all the while; its slowest connect
is printed. Exit 1 when memory or descriptors do not come back.
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.floods.unauthenticated import WAYS, descriptors, insecure, read_all, rss_mib, tls, unfinished_body
from support.server.servers import RunningServer, a_server

THREADS = 16
WARM = 500
MAY_GROW_MIB = 12.0
PATHS = (b"/.well-known/est/simpleenroll", b"/0neX/registrations/x", b"/topics/x")


class Witness:
    """Connects and asks for the CA certificates, again and again."""

    def __init__(self, server: RunningServer) -> None:
        self._server = server
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.seconds: list[float] = []
        self.failed = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        context = insecure()
        while not self._is_over.wait(0.05):
            started = time.perf_counter()
            try:
                with tls(self._server, 8085, context) as sock:
                    sock.sendall(b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    ok = read_all(sock).startswith(b"HTTP/1.1 200")
            except OSError:
                ok = False
            self.failed += not ok
            self.seconds.append(time.perf_counter() - started)

    def told(self) -> dict[str, float]:
        if not self.seconds:  # the attack was over before the first try
            return {"tries": 0}
        return {
            "tries": len(self.seconds),
            "failed": self.failed,
            "median_ms": round(1000 * statistics.median(self.seconds), 1),
            "slowest_ms": round(1000 * max(self.seconds), 1),
        }


def refuse(server: RunningServer, way: str, count: int) -> None:
    context = insecure()

    def one(_: int) -> None:
        with contextlib.suppress(OSError):
            WAYS[way](server, context)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(one, range(count)))


def settled(server: RunningServer, held: int) -> None:
    deadline = time.monotonic() + 15
    while descriptors(server) > held + 2 and time.monotonic() < deadline:
        time.sleep(0.2)


def main() -> int:
    """Run every attack once and print a line of JSON for each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--bodies", type=int, default=300)
    chosen = parser.parse_args()
    bad = 0
    with tempfile.TemporaryDirectory() as directory, a_server(Path(directory), is_warm=False) as server:
        idle, held = rss_mib(server), descriptors(server)
        print(json.dumps({"idle_mib": round(idle, 1), "descriptors": held}), flush=True)
        for path in PATHS:
            before = rss_mib(server)
            with Witness(server) as witness, contextlib.ExitStack() as stack:
                for _ in range(chosen.bodies):
                    with contextlib.suppress(OSError):  # crowded out by the others of its address
                        stack.enter_context(unfinished_body(server, path, insecure()))
                during = rss_mib(server)
            settled(server, held)
            line = {"attack": f"{chosen.bodies} unfinished bodies {path.decode()}", "before_mib": round(before, 1)}
            line |= {"during_mib": round(during, 1), "after_mib": round(rss_mib(server), 1), "witness": witness.told()}
            print(json.dumps(line), flush=True)
        for way in WAYS:
            refuse(server, way, min(WARM, chosen.count))
            settled(server, held)
            before, started = rss_mib(server), time.monotonic()
            with Witness(server) as witness:
                refuse(server, way, chosen.count)
            took = time.monotonic() - started
            settled(server, held)
            grown, left = rss_mib(server) - before, descriptors(server) - held
            bad += grown > MAY_GROW_MIB or left > 2 or "Traceback" in server.log()
            line = {"attack": f"{chosen.count} refused: {way}", "seconds": round(took, 1)}
            line |= {"before_mib": round(before, 1), "grown_mib": round(grown, 1), "descriptors_left": left}
            print(json.dumps(line | {"witness": witness.told()}), flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
