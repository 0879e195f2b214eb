"""Measure what pages of the console cost a server with many devices: its processor, and the bytes of the first visit.

    .venv/bin/python benchmarks/pages.py [--devices N] [--looks N] [--profile]

The records are written into the file of SQLite beside the server: as many devices at a hub, as many certificates that
end over the next years, fifty thousand refusals. A look is a page by itself, drawn for who administers; its processor
is what the kernel counted for the server's process meanwhile.
"""

import argparse
import contextlib
import json
import re
import socket
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

import requests

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from birthmark.webconsole import live_updates
from support.console.browsers import Browser
from support.server.servers import RunningServer, free_address

PAGES = ("/", "/devices", "/devices?state=away", "/devices?begin=pump", "/devices/north-pump-0000002")
GATES_MS = {"/": 50.0, "/devices/north-pump-0000002": 30.0}
GATE_BYTES = 60 * 1024
CONSOLES, GATE_QUIET, _QUIET_S = 200, 0.1, 20
_HOUR, _WEEK = 3_600_000_000, 604_800_000_000
_CODES, _REFUSALS = 20, 50_000
_NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) "
_NAME = (
    "(CASE i % 4 WHEN 0 THEN 'south' WHEN 1 THEN 'mill' WHEN 2 THEN 'north' ELSE 'lake' END || '-' ||"
    " CASE i % 3 WHEN 0 THEN 'valve' WHEN 1 THEN 'meter' ELSE 'pump' END || '-' || printf('%07d', i))"
)


def copied(database: sqlite3.Connection, table: str, count: int, **changed: str) -> None:
    """Copy a row of a table so often, with other values in some of its columns."""
    columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
    values = ", ".join(changed.get(one, f"t.{one}") for one in columns)
    source = f"(SELECT * FROM {table} LIMIT 1) t, n"
    database.execute(f"{_NUMBERS.format(count)} INSERT INTO {table} SELECT {values} FROM {source}")


def fill(path: Path, devices: int) -> None:
    """Write what a server of so many devices has on record."""
    now = time.time_ns() // 1000
    monday = (now + 72 * _HOUR) // _WEEK * _WEEK - 72 * _HOUR
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA synchronous = OFF")
        copied(database, "hub_devices", devices, device_id=_NAME, generation_id="t.generation_id + i")
        for word in ("name", "substr(name, instr(name, '-') + 1)", "substr(name, -7)"):
            names = f"{_NUMBERS.format(devices)} INSERT OR IGNORE INTO words SELECT 'hub/birthmark', {word}, name FROM"
            database.execute(f"{names} (SELECT {_NAME} AS name FROM n)")
        copied(
            database,
            "ca_certificates",
            devices,
            thumbprint="randomblob(32)",
            serial="hex(randomblob(16))",
            key_digest="randomblob(32)",
            device_id=_NAME,
            name=_NAME,
            profile="'device'",
            not_after=f"{now} + (i % 730) * 86400000000",
        )
        figures = "INSERT INTO figures VALUES (?, ?, ?, ?, 'bench', ?)"
        database.execute(figures, ("devices", "birthmark", "enabled", 0, devices))
        weeks = [("certificates", "device", "valid", monday + week * _WEEK, devices // 104) for week in range(104)]
        database.executemany(figures, weeks)
        hour = now // _HOUR * _HOUR
        for name in ("registrations", "renewals"):
            database.executemany(figures, [(name, "x", "", hour - back * _HOUR, 700 + back) for back in range(500)])
        codes = [(f"dps.reason_{one}", hour - back * _HOUR) for one in range(_CODES) for back in range(170)]
        database.executemany(figures, [("refusals", "", code, since, 15) for code, since in codes])
        told = ("message", "cause", "fix", "'127.0.0.1'", "'{}'")
        many = f"{_NUMBERS.format(_REFUSALS)} INSERT INTO refusals SELECT 'r' || i, {now} - i * 1000000,"
        database.execute(
            f"{many} 'dps.reason_' || (i % {_CODES}), {', '.join(repr(t).strip(chr(34)) for t in told)} FROM n"
        )


def cpu_s(server: RunningServer) -> float:
    """Return the seconds of the processor that a server has taken."""
    assert server.process is not None
    threads = Path(f"/proc/{server.process.pid}/task").iterdir()
    return sum(int((one / "schedstat").read_text().split()[0]) for one in threads) / 1e9


def followed(server: RunningServer, token: dict[str, str], consoles: int) -> float:
    """Return which part of a core so many browsers take that follow what happens, while nothing does."""
    url = server.endpoints["health_url"].rsplit("/", 1)[0]
    address = (server.address, 8080)
    with contextlib.ExitStack() as stack:
        for number in range(consoles):
            if number % live_updates.MOST_OF_ONE == 0:
                name = f"user-{number}"
                for path, body in (("", {"name": name, "role": "viewer"}), (f"/{name}/invitation", {})):
                    made = requests.post(f"{url}/operator/v1/people/users{path}", json=body, headers=token, timeout=30)
                browser = Browser(url)
                secret = "four words by chance"
                browser.submit("/invitation", code=made.json()["code"], password=secret, again=secret)
                cookies = "; ".join(f"{one.name}={one.value}" for one in browser.http.cookies)
            sock = stack.enter_context(socket.create_connection(address))
            head = f"GET /live HTTP/1.1\r\nHost: {server.address}:8080\r\nCookie: {cookies}\r\n\r\n"
            sock.sendall(head.encode())
            assert sock.recv(64).startswith(b"HTTP/1.1 200")
        time.sleep(2)
        before = cpu_s(server)
        time.sleep(_QUIET_S)
        return (cpu_s(server) - before) / _QUIET_S


def first_visit(browser: Browser) -> int:
    """Return the bytes of the first page with all that it loads, packed."""
    packed = {"Accept-Encoding": "gzip"}
    page = browser.get("/", **packed)
    found = len(page.raw.data or b"") or int(page.headers.get("content-length", 0))
    for path in set(re.findall(r'(?:src|href|data-stream)="(/files/[^"]+)"', page.text)):
        found += int(browser.get(path, **packed).headers["content-length"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=1_000_000)
    parser.add_argument("--looks", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        server = RunningServer(Path(directory) / "data", free_address()).start()
        url = server.endpoints["health_url"].rsplit("/", 1)[0]
        token = {"Authorization": f"Bearer {(server.data / 'operator.token').read_text().strip()}"}
        made = requests.post(
            f"{url}/operator/v1/hubs/birthmark/devices", json={"device_id": "a"}, headers=token, timeout=30
        )
        made.raise_for_status()
        server.stop()
        fill(server.data / "birthmark.db", given.devices)
        server.start()
        code = requests.post(f"{url}/operator/v1/console/open", json={}, headers=token, timeout=30).json()["path"]
        browser = Browser(url)
        browser.submit("/open", code=code.partition("#")[2])
        results = {}
        for path in PAGES:
            for _ in range(3):
                answer = browser.get(path)
                assert answer.status_code == 200, (path, answer.status_code, answer.text[:500])
            before = cpu_s(server)
            for _ in range(given.looks):
                browser.get(path)
            taken = (cpu_s(server) - before) / given.looks * 1000
            results[path] = {"cpu_ms": round(taken, 2), "gate_ms": GATES_MS.get(path)}
            if not given.json:
                print(
                    f"{path:34} {taken:7.2f} ms of the server"
                    + (f" (gate {GATES_MS[path]:.0f})" if path in GATES_MS else "")
                )
        size, part = first_visit(browser), followed(server, token, CONSOLES)
        if given.json:
            print(json.dumps({"pages": results, "first_visit_bytes": size, "quiet_consoles": part}))
        else:
            print(f"the first visit takes {size / 1024:.1f} KiB (gate {GATE_BYTES // 1024})")
            print(f"{CONSOLES} quiet consoles take {part:.1%} of a core (gate {GATE_QUIET:.0%})")
        server.stop()


if __name__ == "__main__":
    main()
