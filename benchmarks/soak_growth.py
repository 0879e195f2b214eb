"""A server with 10 million devices on record: registrations, pages, searches, start, backup and restore.

python benchmarks/soak_growth.py [--devices 10000000] [--engine sqlite|postgresql] [--looks 300] [--rounds 5]

Each device is at a hub, with a certificate of this server and the words of its name. The records are written into the
database while the server is stopped. Prints a JSON object for each figure. Exit 1 if one misses its gate.
"""

import argparse
import asyncio
import contextlib
import json
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import requests
from measures.registration import put_group, register
from rig import Rig, a_rig, cpu_us_each, each

from support.console.browsers import Browser
from support.server.servers import BIRTHMARK, RunningServer, clean_environment
from support.services.postgres import a_postgres

FEW, OPERATIONS, STARTS = 1_000, 200, 3
RATIO, LOOK_MS, START_S = 1.1, 50.0, 2.0
_DAY_US = 86_400_000_000
_PLANT = "CASE i % 4 WHEN 0 THEN 'south' WHEN 1 THEN 'mill' WHEN 2 THEN 'north' ELSE 'lake' END"
_KIND = "CASE i % 3 WHEN 0 THEN 'valve' WHEN 1 THEN 'meter' ELSE 'pump' END"
_FUNCTIONS = {
    "sqlite": {
        "number": "printf('%08d', i)",
        "blob": "randomblob(32)",
        "serial": "hex(randomblob(16))",
        "rows": "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) SELECT i FROM n)",
        "columns": "SELECT name FROM pragma_table_info('{table}') ORDER BY cid",
    },
    "postgresql": {
        "number": "lpad(i::text, 8, '0')",
        "blob": "sha256((random()::text || i)::bytea)",
        "serial": "md5(random()::text || i)",
        "rows": "(SELECT i FROM generate_series(1, {count}) AS i)",
        "columns": (
            "SELECT column_name FROM information_schema.columns WHERE table_name = '{table}'"
            " AND table_schema = current_schema() ORDER BY ordinal_position"
        ),
    },
}
"""The SQL of each engine."""
_is_good = True


def tell(what: str, value: float, unit: str, gate: float | None = None) -> None:
    """Print a figure, and record whether it misses its gate."""
    global _is_good  # noqa: PLW0603 - the exit status of the program
    _is_good &= gate is None or value <= gate
    print(json.dumps({"figure": what, "value": round(value, 3), "unit": unit, "gate": gate}), flush=True)


def fill(engine: str, run: Callable[[str], list[str]], count: int) -> None:
    """Add devices to the hub, whose only device and certificate are copied; `run` returns the first column."""
    functions = _FUNCTIONS[engine]
    number, rows = functions["number"], functions["rows"].format(count=count)
    words = (f"{_PLANT} || '-' || {_KIND} || '-' || {number}", f"{_KIND} || '-' || {number}", number)
    now, blob, serial = time.time_ns() // 1000, functions["blob"], functions["serial"]

    def copy(table: str, **changed: str) -> None:
        columns = run(functions["columns"].format(table=table))
        values = ", ".join(changed.get(one, f"t.{one}") for one in columns)
        source = f"(SELECT * FROM {table} LIMIT 1) AS t, {rows} AS n"
        run(f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {source}")

    copy("hub_devices", device_id=words[0], generation_id="CAST(i AS TEXT)")
    for word in words:
        run(f"INSERT INTO words SELECT 'hub/birthmark', {word}, {words[0]} FROM {rows} AS n")
    ends = f"{now} + (i % 730) * {_DAY_US}"
    names = {"device_id": words[0], "name": words[0], "profile": "'device'"}
    copy("ca_certificates", **names, thumbprint=blob, serial=serial, key_digest=blob, not_after=ends)
    run(f"INSERT INTO figures VALUES ('devices', 'birthmark', 'enabled', 0, 'growth', {count})")


def in_sqlite(path: Path, count: int) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA synchronous = OFF")
        database.execute("PRAGMA cache_size = -1000000")
        fill("sqlite", lambda sql: [row[0] for row in database.execute(sql)], count)


async def in_postgresql(url: str, count: int) -> None:
    connection = await asyncpg.connect(url)
    try:
        loop = asyncio.get_running_loop()

        def run(sql: str) -> list[str]:
            asked = asyncio.run_coroutine_threadsafe(connection.fetch(sql, timeout=7200), loop)
            return [row[0] for row in asked.result()]

        await asyncio.to_thread(fill, "postgresql", run, count)
        await connection.execute("ANALYZE", timeout=3600)
    finally:
        await connection.close()


@contextlib.contextmanager
def databases(engine: str) -> Iterator[tuple[str, str]]:
    """Yield the URLs of two databases; empty for SQLite, whose files are in the servers' directories."""
    if engine == "sqlite":
        yield "", ""
        return
    with a_postgres() as few, a_postgres() as many:
        yield few, many


def a_filled_server(rig: Rig, name: str, url: str, count: int) -> RunningServer:
    """Start a server that has so many devices on record."""
    server = rig.a_server(name, database=url)
    put_group(rig, server)
    api = f"{server.endpoints['health_url'].rsplit('/', 1)[0]}/operator/v1"
    made = requests.post(f"{api}/hubs/birthmark/devices", json={"device_id": "a"}, headers=operator(server), timeout=30)
    made.raise_for_status()
    server.stop()
    began = time.monotonic()
    if url:
        asyncio.run(in_postgresql(url, count))
    else:
        in_sqlite(server.data / "birthmark.db", count)
    tell(f"records of {count:,} devices written", time.monotonic() - began, "s")
    return server.start()


def operator(server: RunningServer) -> dict[str, str]:
    return {"Authorization": f"Bearer {(server.data / 'operator.token').read_text().strip()}"}


def some_beginnings(count: int, looks: int) -> Iterator[str]:
    """Yield starts of words: of a plant, a kind or a number, short and long."""
    chance = random.Random(1)
    for _ in range(looks):
        i = chance.randrange(1, count + 1)
        kind, number = ("valve", "meter", "pump")[i % 3], f"{i:08}"
        plant = ("south", "mill", "north", "lake")[i % 4]
        word = chance.choice((f"{plant}-{kind}-{number}", f"{kind}-{number}", number))
        yield word[: chance.choice((1, 3, len(word) - 1, len(word)))]


def told_times(what: str, times: list[float]) -> None:
    """Print the median and the 99th percentile of times in ms."""
    ordered = sorted(times)
    tell(f"{what}, median", statistics.median(ordered), "ms")
    tell(f"{what}, p99", ordered[int(len(ordered) * 0.99)], "ms", LOOK_MS)


def look(server: RunningServer, count: int, looks: int) -> None:
    """Search devices by the operator interface, and open pages of the console."""
    url, session = server.endpoints["health_url"].rsplit("/", 1)[0], requests.Session()
    session.headers.update(operator(server))
    times = []
    for begin in some_beginnings(count, looks):
        began = time.perf_counter()
        answer = session.get(f"{url}/operator/v1/devices", params={"begin": begin, "limit": 100}, timeout=60)
        times.append((time.perf_counter() - began) * 1000)
        answer.raise_for_status()
        assert answer.json()["items"], begin
    told_times("device find", times)
    code = session.post(f"{url}/operator/v1/console/open", json={}, timeout=30).json()["path"]
    browser = Browser(url)
    browser.submit("/open", code=code.partition("#")[2])
    for path in ("/", "/devices", "/devices?state=ending", "/devices?begin=pump", "/devices/north-pump-00000002"):
        times = []
        for _ in range(max(10, looks // 3)):
            began = time.perf_counter()
            answer = browser.get(path)
            times.append((time.perf_counter() - began) * 1000)
            assert answer.status_code == 200, (path, answer.status_code)
        told_times(f"console {path}", times)


def register_devices(rig: Rig, few: RunningServer, many: RunningServer, rounds: int) -> None:
    """Register new devices at both servers in turn."""
    spent: dict[str, list[float]] = {"few": [], "many": []}
    for number in range(rounds):
        for name, server in (("few", few), ("many", many)):
            devices = rig.devices(OPERATIONS, f"{name}-{number}")
            to = server
            spent[name].append(cpu_us_each(server.pid, lambda: each(lambda one: register(to, one), devices)))  # noqa: B023
    tell("registration, CPU of the server", min(spent["many"]), "us")
    tell(f"registration, of that with {FEW:,} devices", min(spent["many"]) / min(spent["few"]), "times", RATIO)


def start_again(server: RunningServer) -> None:
    times = []
    for _ in range(STARTS):
        server.stop()
        began = time.monotonic()
        server.start()
        times.append(time.monotonic() - began)
    tell("start until ready, median", statistics.median(times), "s", START_S)
    status = Path(f"/proc/{server.pid}/status").read_text()
    tell("memory after the start", int(status.split("VmRSS:")[1].split()[0]) / 1024, "MiB")


def back_up(rig: Rig, server: RunningServer, engine: str) -> None:
    passphrase, file = rig.directory / "passphrase", rig.directory / "growth.birthmark"
    passphrase.write_text("four words for the benchmark\n")
    passphrase.chmod(0o600)
    began = time.monotonic()
    run(server, "backup", "--out", str(file), "--passphrase-file", str(passphrase))
    tell("backup while it runs", time.monotonic() - began, "s")
    tell("size of the backup", file.stat().st_size / 1e6, "MB")
    if engine == "sqlite":
        server.stop()
        began = time.monotonic()
        restored = rig.directory / "restored"
        given = ("--data", str(restored), "--passphrase-file", str(passphrase))
        run(server, "restore", str(file), *given)
        tell("restore", time.monotonic() - began, "s")
        shutil.rmtree(restored)
    file.unlink()


def run(server: RunningServer, *arguments: str) -> None:
    """Run a command of `birthmark server`, and show its progress."""
    environment = clean_environment(BIRTHMARK_DATA=str(server.data), HOME=str(server.data.parent))
    subprocess.run([BIRTHMARK, "server", *arguments], env=environment, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=10_000_000)
    parser.add_argument("--engine", choices=tuple(_FUNCTIONS), default="sqlite")
    parser.add_argument("--looks", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ungated", action="store_true", help="exit 0 if a figure misses its gate")
    given = parser.parse_args()
    with a_rig() as rig, databases(given.engine) as (few_url, many_url):
        few = a_filled_server(rig, "few", few_url, FEW)
        many = a_filled_server(rig, "many", many_url, given.devices)
        start_again(many)
        look(many, given.devices, given.looks)
        register_devices(rig, few, many, given.rounds)
        back_up(rig, many, given.engine)
    sys.exit(not (_is_good or given.ungated))


if __name__ == "__main__":
    main()
