"""Two machines that serve as one: each a data directory and an address of its own, on one PostgreSQL and one NATS."""

import contextlib
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.aws.clients import PATIENCE_S, Account, publish, until, until_got
from support.azure.clients import Device, a_file_device
from support.server.readiness import until_workers_are_ready
from support.server.servers import RunningServer, a_server, free_address
from support.services.nats_server import a_nats
from support.services.postgres import a_postgres

pytestmark = pytest.mark.system


@dataclass(frozen=True)
class Machines:
    """The first has invited, the second has joined."""

    first: RunningServer
    second: RunningServer
    bus: str
    database: str


def config_of(bus: str, database: str, hosts: str) -> str:
    return f'database = "{database}"\nbus = "{bus}"\nworkers = 2\nnames = [{hosts}]\n'


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    addresses = free_address(), free_address()
    hosts = ", ".join(f'"{address}"' for address in addresses)
    with a_postgres() as database, a_nats() as bus:
        config = config_of(bus, database, hosts)
        with a_server(one, config, is_warm=False, address=addresses[0]) as first:
            first.run("server", "node", "invite", "--out", str(two / "invitation.json"))
            first.run(
                *("server", "node", "join", str(two / "invitation.json")),
                BIRTHMARK_DATA=str(two / "data"),
                BIRTHMARK_DATABASE=database,
            )
            with a_server(two, config, is_warm=False, address=addresses[1]) as second:
                yield Machines(first, second, bus, database)


@pytest.fixture
def account(machines: Machines, tmp_path: Path) -> Iterator[Account]:
    until_workers_are_ready(machines.first)
    until_workers_are_ready(machines.second)
    made = Account(machines.first)
    yield made
    made.close()


def on_record(server: RunningServer, directory: Path, name: str) -> Device:
    device = a_file_device(directory, name)
    server.run("device", "enroll", "--cert", str(device.certificate_file))
    return device


def test_each_machine_lists_both_and_says_which_leads(machines: Machines) -> None:
    for server, here in ((machines.first, "m1"), (machines.second, "m2")):
        rows = server.rows("server", "node", "ls")
        assert [(row["name"], row["leads"]) for row in rows] == [("m1", True), ("m2", False)]
        assert [row["name"] for row in rows if row["here"]] == [here]
        assert all(row["workers"] > 0 for row in rows)


def test_a_device_that_moves_to_the_other_machine_gets_what_waits_for_it(machines: Machines, account: Account) -> None:
    (device,) = account.subscribed("to/mover", 1, name="mover", clean=False, host=machines.first.address)
    device.disconnect()
    assert device.ended.wait(PATIENCE_S)
    publish(account.client(host=machines.first.address), "to/mover", "from the first")
    publish(account.client(host=machines.second.address), "to/mover", "from the second")
    until_got(account.client("mover", clean=False, host=machines.second.address), ["from the first", "from the second"])


def test_a_message_reaches_subscribers_at_both_machines(machines: Machines, account: Account) -> None:
    there = [
        *account.subscribed("to/all", 2, host=machines.first.address),
        *account.subscribed("to/all", 2, host=machines.second.address),
    ]
    publish(account.client(host=machines.second.address), "to/all", "hello")
    for client in there:
        until_got(client, ["hello"])


def test_what_is_revoked_at_one_machine_ends_at_the_other(machines: Machines, account: Account) -> None:
    client = account.client(host=machines.second.address)
    began = time.monotonic()
    account.iot.update_certificate(certificateId=account.certificate_id, newStatus="INACTIVE")
    assert client.ended.wait(5)
    assert time.monotonic() - began < 3


def test_a_device_on_record_at_one_machine_registers_at_the_other(machines: Machines, tmp_path: Path) -> None:
    device = on_record(machines.first, tmp_path, "machine-pump")
    dps = machines.second.endpoints["dps"]
    done = machines.second.run(
        *("device", "register", "--host", machines.second.address, "--id-scope", dps["id_scope"]),
        *("--cert", str(device.certificate_file), "--key", str(device.key_file)),
        *("--ca-file", str(machines.second.data / "trust.pem")),
    )
    assert machines.first.address in done.stdout  # where the hub was made first
    assert "machine-pump" in machines.first.run("hub", "device", "ls").stdout


def test_one_certificate_of_each_machine_is_its_own_below_one_root(machines: Machines) -> None:
    keys = [(one.data / "tls" / "server.key").read_bytes() for one in (machines.first, machines.second)]
    trust = [(one.data / "trust.pem").read_bytes() for one in (machines.first, machines.second)]
    assert keys[0] != keys[1]
    assert trust[0] == trust[1]


def test_the_trail_of_all_workers_of_both_machines_verifies_at_each(machines: Machines) -> None:
    for server in (machines.first, machines.second):
        server.run("server", "audit", "verify")
    trail = machines.second.run("server", "audit", "ls").stdout
    assert "server.machine_invite" in trail
    assert "server.machine_join" in trail


def test_a_machine_without_the_bus_of_the_others_does_not_serve(machines: Machines, tmp_path: Path) -> None:
    second = machines.second
    own = tmp_path / "own.toml"
    own.write_text(f'database = "{machines.database}"\nworkers = 2\n')
    second.stop()
    try:
        done = second.attempt("serve", "--data", str(second.data), "--config", str(own), "--listen", second.address)
        assert done.returncode != 0
        assert "server.bus_missing" in done.stderr
    finally:
        second.start()


def test_a_machine_that_leads_and_lost_its_seeds_goes_on_by_those_of_the_others(machines: Machines) -> None:
    first, names = machines.first, ("audit.seed", "est.seed")
    before = [(first.data / name).read_bytes() for name in names]
    first.stop()
    try:
        for name in names:
            (first.data / name).unlink()
    finally:
        first.start()
    assert [(first.data / name).read_bytes() for name in names] == before
    first.run("server", "audit", "verify")


def test_the_root_is_exchanged_at_the_machine_that_leads_and_the_other_follows(
    machines: Machines, tmp_path: Path
) -> None:
    refused = machines.second.attempt("pki", "rollover", "start", "--yes")
    assert "server.machine_elsewhere" in refused.stderr
    refused = machines.second.attempt("ca", "install", "any", "--dir", str(machines.second.data / "ca"))
    assert "server.machine_elsewhere" in refused.stderr
    machines.first.run("pki", "rollover", "start", "--yes")
    until(lambda: (machines.second.data / "trust.pem").read_text().count("BEGIN CERTIFICATE") == 2)
    machines.first.run("pki", "rollover", "next", "--yes")
    status = machines.second.run("pki", "rollover", "status").stdout
    assert "both roots trusted, the new root signs" in status
    signed_there = Account(machines.second)  # by the new CA, which came from the first
    with contextlib.closing(signed_there):
        signed_there.client(host=machines.first.address)
    machines.first.run("pki", "rollover", "back", "--yes")
    machines.first.run("pki", "rollover", "back", "--yes")
    until(lambda: (machines.second.data / "trust.pem").read_text().count("BEGIN CERTIFICATE") == 1)


def test_a_machine_takes_the_place_of_one_that_is_lost(machines: Machines, tmp_path: Path) -> None:
    machines.first.stop()
    try:
        on_record(machines.second, tmp_path, "lonely-pump")
        machines.second.run("server", "node", "lead", "--yes")
        machines.second.run("pki", "rollover", "start", "--yes")
        alive = {row["name"]: row["workers"] for row in machines.second.rows("server", "node", "ls")}
        assert alive["m1"] == 0 < alive["m2"]
    finally:
        machines.first.start()
    assert (machines.first.data / "trust.pem").read_text().count("BEGIN CERTIFICATE") == 2
    rows = machines.first.rows("server", "node", "ls")
    assert [row["name"] for row in rows if row["leads"]] == ["m2"]
    machines.second.run("pki", "rollover", "back", "--yes")
    machines.first.run("server", "node", "lead", "--yes")


def test_a_machine_on_an_empty_database_is_refused_and_begins_one_by_what_that_says(
    machines: Machines, tmp_path: Path
) -> None:
    machines.first.stop()
    try:
        subprocess.run(["cp", "-a", machines.first.data, tmp_path / "data"], check=True)
    finally:
        machines.first.start()
    with a_postgres() as empty:
        (tmp_path / "server.toml").write_text(config_of(machines.bus, empty, '"localhost"'))
        server = RunningServer(tmp_path / "data", free_address(), tmp_path / "server.toml")
        refused = server.attempt("serve", "--config", str(server.config), "--listen", server.address)
        assert "server.records_lost" in refused.stderr
        (command,) = re.findall("`(rm -f .*?)`", refused.stderr)
        subprocess.run(shlex.split(command), check=True)
        server.start()
        try:
            assert server.rows("server", "node", "ls") == []
        finally:
            server.stop()


def test_a_backup_of_one_of_several_machines_becomes_a_server_that_starts_as_it_is_told(
    machines: Machines, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("correct horse battery staple")
    (tmp_path / "secret").chmod(0o600)
    secret = ("--passphrase-file", str(tmp_path / "secret"))
    out = str(tmp_path / "b.birthmark")
    named = {"BIRTHMARK_DATABASE": machines.database}
    machines.second.run("server", "backup", "--out", out, *secret, **named)
    done = machines.second.run("server", "restore", out, *secret, BIRTHMARK_DATA=str(tmp_path / "data"))
    assert f"`birthmark serve --data {tmp_path / 'data'} &`" in done.stderr
    server = RunningServer(tmp_path / "data", free_address()).start()
    try:
        assert server.rows("server", "node", "ls") == []
    finally:
        server.stop()
