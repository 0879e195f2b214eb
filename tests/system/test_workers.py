"""Several workers that serve as one, on PostgreSQL and NATS, by the vendors' own clients; parts of them are killed."""

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

from support.aws.clients import PATIENCE_S, Account, publish, until, until_got
from support.pki.pki_builders import a_device
from support.server.readiness import readiness, until_workers_are_ready
from support.server.servers import BIRTHMARK, RunningServer, a_server, clean_environment, free_address
from support.server.workers_of import below, hit, loaded, spare_of, started_anew, wake
from support.services.postgres import a_postgres

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_postgres() as url:
        config = f'database = "{url}"\nworkers = 2\n'
        with a_server(tmp_path_factory.mktemp("workers"), config, is_warm=False) as running:
            yield running


@pytest.fixture
def account(server: RunningServer, tmp_path: Path) -> Iterator[Account]:
    until_workers_are_ready(server)
    made = Account(server)
    yield made
    made.close()


def metrics_of(server: RunningServer) -> list[str]:
    """Return the lines of the page of metrics, of all workers."""
    import urllib.request

    url = server.endpoints["health_url"].replace("/healthz", "/metrics")
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
    return text.splitlines()


def connections_of(server: RunningServer) -> dict[str, float]:
    """How many AWS clients each worker has."""
    found = [
        line
        for line in metrics_of(server)
        if line.startswith("birthmark_connections{") and 'cloud="aws",protocol="3' in line
    ]
    return {line.split('"')[1]: float(line.rpartition(" ")[2]) for line in found}


def spread(server: RunningServer, one_more: Callable[[], object]) -> None:
    """Have another client come until each worker has one: which one takes it is chance's choice."""
    for _ in range(40):
        if all(connections_of(server).values()):
            return
        one_more()
        time.sleep(0.2)
    raise AssertionError("one worker has all of the clients")


def test_each_worker_looks_at_its_machine_and_the_one_that_judges_names_it(tmp_path: Path) -> None:
    with a_postgres() as url:
        config = f'database = "{url}"\nworkers = 2\n[alerts]\nevery = "1s"\ndisk_free = 1.0\nclock_off = "1s"\n'
        with a_server(tmp_path, config, is_warm=False) as server:
            told: list[dict[str, Any]] = []

            def is_told() -> bool:
                told[:] = server.rows("alert", "ls")
                return any(one["examples"] == ["w1", "w2"] for one in told)

            until(is_told, told, PATIENCE_S + 60)  # it has to hold for a minute
            (one,) = told  # and both clocks are those of the database
            assert (one["rule"], one["subject"]) == ("disk-full", socket.gethostname())
            by_worker = {
                "birthmark_disk_free_ratio": 2,
                "birthmark_clock_offset_seconds": 2,
                "birthmark_outbox_age_seconds": 1,
            }
            lines = metrics_of(server)
            assert {name: sum(line.startswith(f"{name}{{") for line in lines) for name in by_worker} == by_worker
            assert "2, such as w1, w2" in server.run("alert", "show", "disk-full").stdout


def test_each_message_reaches_the_subscribers_of_every_worker(server: RunningServer, account: Account) -> None:
    subscribers = [*account.subscribed("all/#", 8)]
    spread(server, lambda: subscribers.extend(account.subscribed("all/#", 1)))
    for number, client in enumerate(subscribers):
        publish(client, "all/of", str(number))
    count = len(subscribers)
    until(lambda: all(len(client.got) == count for client in subscribers), [client.got for client in subscribers])
    every = sorted(("all/of", str(number)) for number in range(count))
    assert [sorted(client.got) for client in subscribers] == [every] * count


def test_a_certificate_that_one_worker_was_shown_is_found_by_whichever_is_asked(
    server: RunningServer, tmp_path: Path
) -> None:
    for number in range(8):
        held = a_device(None, f"unknown-{number}", now=datetime.now(UTC))
        files = tmp_path / "unknown.pem", tmp_path / "unknown.key"
        files[0].write_text(held.certificate.pem())
        files[1].write_text(held.key_pem)
        context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
        context.load_cert_chain(*files)
        client = paho.Client(f"unknown-{number}")
        client.tls_set_context(context)
        client.connect(server.endpoints["aws"]["data_endpoint"], 8883)
        while client.loop(0.2) == paho.MQTT_ERR_SUCCESS:
            assert not client.is_connected()
        server.why(f"unknown-{number}")
        server.run("device", "enroll", "--presented", held.certificate.thumbprint.hex())


def test_each_member_of_a_shared_subscription_has_its_part_wherever_it_is_connected(account: Account) -> None:
    members = account.subscribed("$share/team/work", 4, clean=False)
    publisher = account.client()
    for number in range(80):
        publish(publisher, "work", str(number))
    until(lambda: sum(len(one.got) for one in members) == 80, [len(one.got) for one in members])
    assert sorted(payload for one in members for _, payload in one.got) == sorted(map(str, range(80)))
    assert min(len(one.got) for one in members) >= 10, [len(one.got) for one in members]


def test_messages_wait_for_a_client_that_comes_to_another_worker(account: Account) -> None:
    (first,) = account.subscribed("mail/#", 1, name="keeps", clean=False)
    first.disconnect()
    assert first.ended.wait(PATIENCE_S)
    senders = [account.client() for _ in range(4)]
    for number, sender in enumerate(senders):
        publish(sender, "mail/to", str(number))
    for number in range(6):  # each time at a worker that chance chooses
        client = account.client("keeps", clean=False)
        before = [] if number else [str(one) for one in range(4)]
        until_got(client, before)
        publish(senders[0], "mail/to", f"again {number}")
        until_got(client, [*before, f"again {number}"])


def test_a_certificate_that_is_made_inactive_ends_its_connections_at_every_worker(
    server: RunningServer, account: Account
) -> None:
    clients = [account.client() for _ in range(8)]
    spread(server, lambda: clients.append(account.client()))
    account.iot.update_certificate(certificateId=account.certificate_id, newStatus="INACTIVE")
    until(lambda: all(client.ended.is_set() for client in clients), "some stayed")


def test_what_is_revoked_while_the_bus_hears_nothing_is_revoked_at_every_worker(
    server: RunningServer, account: Account
) -> None:
    clients = [account.client() for _ in range(8)]
    spread(server, lambda: clients.append(account.client()))
    nats = below(server)["nats"]
    hit(nats, signal.SIGSTOP)
    try:
        account.iot.update_certificate(certificateId=account.certificate_id, newStatus="INACTIVE")
        until(lambda: all(client.ended.is_set() for client in clients), "some stayed")
    finally:
        hit(nats, signal.SIGCONT)


def test_workers_stay_ready_while_the_bus_is_away(server: RunningServer) -> None:
    nats = below(server)["nats"]
    hit(nats, signal.SIGSTOP)
    try:
        until(lambda: readiness(server)[1].get("bus") == "alone")
        assert readiness(server)[0] == 200
    finally:
        hit(nats, signal.SIGCONT)
    until_workers_are_ready(server)


def test_a_worker_that_is_killed_is_started_again_and_its_clients_wills_are_sent_once(
    server: RunningServer, account: Account
) -> None:
    clients = [account.client(will=f"wills/{number}") for number in range(8)]
    (watcher,) = account.subscribed("wills/#", 1)
    before = below(server)
    hit(before["worker 1"], signal.SIGKILL)
    until(lambda: any(client.ended.is_set() for client in clients))
    if watcher.ended.wait(1.0):  # it was there, too: its session is clean, and hears nothing of it
        return
    lost = {f"wills/{number}" for number, client in enumerate(clients) if client.ended.is_set()}
    until(lambda: {topic for topic, _ in watcher.got} == lost, (watcher.got, lost))
    until_workers_are_ready(server)
    assert below(server)["worker 2"] != before["worker 1"]
    time.sleep(1.5)
    assert len(watcher.got) == len(lost)


def test_a_worker_that_is_killed_is_replaced_by_the_spare_program_and_another_spare_is_loaded(
    server: RunningServer,
) -> None:
    until_workers_are_ready(server)
    spare = spare_of(server)
    hit(below(server)["worker 1"], signal.SIGKILL)
    until(lambda: spare in below(server).values(), "the spare program is not used")
    until_workers_are_ready(server)
    assert spare_of(server) != spare


def test_a_worker_that_was_taken_for_dead_has_no_effect_when_it_wakes(server: RunningServer, account: Account) -> None:
    clients = account.subscribed("news/#", 8, clean=False)
    hit(below(server)["worker 1"], signal.SIGSTOP, 1.4)
    until(lambda: any(client.ended.is_set() for client in clients), "nobody was told")
    until_workers_are_ready(server)
    again = [account.client(client._client_id.decode(), clean=False) for client in clients]
    publish(account.client(), "news/of", "today")
    until(lambda: all(client.got == [("news/of", "today")] for client in again), [client.got for client in again])


def test_all_workers_are_started_again_one_after_the_other_and_nobody_is_refused(server: RunningServer) -> None:
    context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
    over, came, failed = threading.Event(), [0], list[str]()

    def come() -> None:
        while not over.is_set():
            try:
                with (
                    socket.create_connection((server.address, 8443), 30) as raw,
                    context.wrap_socket(raw, server_hostname=server.address) as connection,
                ):
                    connection.sendall(b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    came[0] += b"404" in connection.recv(64)
            except OSError as error:
                failed.append(repr(error))

    coming = [threading.Thread(target=come) for _ in range(3)]
    for thread in coming:
        thread.start()
    started_anew(server)
    over.set()
    for thread in coming:
        thread.join()
    assert (failed, came[0] > 20) == ([], True)


def test_a_server_whose_workers_are_started_anew_stays_ready_and_says_when_it_is_over(server: RunningServer) -> None:
    until_workers_are_ready(server)
    over, seen = threading.Event(), list[tuple[int, str]]()

    def look() -> None:
        while not over.wait(0.02):
            status, told = readiness(server)
            seen.append((status, told["workers"]))

    looking = threading.Thread(target=look)
    looking.start()
    started_anew(server)
    over.set()
    looking.join()
    assert {status for status, _ in seen} == {HTTPStatus.OK}
    assert {word.partition(":")[0] for _, word in seen} >= {"restarting", "away"}
    assert "server.restarted" in server.log()


def subject_names(server: RunningServer) -> set[str]:
    """Return the names of the certificate that is served."""
    context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
    context.check_hostname = False
    with socket.create_connection((server.address, 8883), 10) as raw, context.wrap_socket(raw) as tls:
        told: Any = tls.getpeercert()
    return {value for _, value in told["subjectAltName"]}


def test_a_restart_takes_over_what_the_configuration_says_by_then(server: RunningServer) -> None:
    until_workers_are_ready(server)
    assert server.config is not None
    before = server.config.read_text()
    try:
        server.config.write_text(f'names = ["added.example"]\n{before.replace("workers = 2", "workers = 3")}')
        started_anew(server)
        assert "added.example" in subject_names(server)
        assert '"settings": "workers"' in server.log()
        server.config.write_text("names = 7\n")
        started_anew(server)
        assert "added.example" in subject_names(server)
        assert "server.config_not_taken" in server.log()
    finally:
        server.config.write_text(before)
    started_anew(server)


def test_strangers_who_never_finish_what_they_ask_hold_no_restart_up(server: RunningServer) -> None:
    until_workers_are_ready(server)
    context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
    with contextlib.ExitStack() as stack:
        for number in range(20):
            raw = stack.enter_context(socket.create_connection((server.address, 8443), 30))
            line = stack.enter_context(context.wrap_socket(raw, server_hostname=server.address))
            line.sendall(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf" if number % 2 else b"GET /")
        (first, second), began = [below(server)[f"worker {number}"] for number in (1, 2)], time.monotonic()
        os.kill(first, signal.SIGTERM)
        while Path(f"/proc/{first}").exists() and time.monotonic() - began < 20:
            time.sleep(0.01)
        assert time.monotonic() - began < 5  # it was seven seconds and more
    assert second in below(server).values()
    until_workers_are_ready(server)


def test_a_worker_that_is_started_anew_goes_when_its_successor_has_loaded_everything(server: RunningServer) -> None:
    until_workers_are_ready(server)
    seen, over = list[int](), threading.Event()

    def look() -> None:
        while not over.wait(0.005):
            seen.append(len(loaded(server)))

    looking = threading.Thread(target=look)
    looking.start()
    started_anew(server)
    over.set()
    looking.join()
    assert min(seen) == 2, "the spare program ends first, and its successor is loaded before a worker ends"
    assert max(seen) > 2


def test_readiness_names_a_worker_that_is_away(server: RunningServer) -> None:
    until_workers_are_ready(server)
    stopped = below(server)["worker 2"]
    hit(stopped, signal.SIGSTOP)
    try:
        status, told = readiness(server)
        assert status == HTTPStatus.SERVICE_UNAVAILABLE
        assert told.pop("workers").startswith("away: w")
        assert told.pop("ready") is False
        assert set(told.values()) == {"ready"}, "what nobody said of the others is not away"
    finally:
        wake(stopped)
        until_workers_are_ready(server)


def test_a_worker_that_stands_still_is_ended_and_started_anew(server: RunningServer) -> None:
    until_workers_are_ready(server)
    stopped = below(server)["worker 1"]
    hit(stopped, signal.SIGSTOP)
    until(lambda: stopped not in below(server).values(), below(server), 60)
    until_workers_are_ready(server)
    assert "worker.killed" in server.log()


def test_a_worker_that_stands_still_keeps_no_command_and_no_restart_waiting(server: RunningServer) -> None:
    until_workers_are_ready(server)
    stopped = below(server)["worker 1"]
    hit(stopped, signal.SIGSTOP)
    assert server.rows("hub", "ls")  # the command itself waits for 30 s at most
    started_anew(server)
    assert stopped not in below(server).values()


def test_a_start_that_waits_ends_when_it_is_told_to(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://birthmark@127.0.0.1:{silent.getsockname()[1]}/x"
        command = [BIRTHMARK, "serve", "--workers", "2", "--data", str(tmp_path / "data"), "--database", url]
        started = subprocess.Popen([*command, "--listen", free_address()], env=clean_environment())
        with started as process, silent.accept()[0]:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) in {0, 5}
        assert not (tmp_path / "data" / "nats").exists()


def test_connections_of_a_lost_device_are_told_and_ended_at_every_worker(
    server: RunningServer, account: Account
) -> None:
    account.iot.create_thing(thingName="lost-1")
    account.iot.attach_thing_principal(thingName="lost-1", principal=account.arn)
    clients = [account.client() for _ in range(8)]
    spread(server, lambda: clients.append(account.client()))
    command = ("device", "revoke", "lost-1", "--yes", "--json")
    rows = [json.loads(line) for line in server.run(*command).stdout.splitlines()]
    (row,) = [row for row in rows if row["what"] == "connection"]
    assert row["note"] == f"{len(clients)} of them"
    until(lambda: all(client.ended.is_set() for client in clients), "some are still connected")


def test_a_device_is_shown_with_the_workers_that_it_is_connected_to(server: RunningServer, account: Account) -> None:
    account.iot.create_thing(thingName="where-1")
    account.iot.attach_thing_principal(thingName="where-1", principal=account.arn)
    clients = [account.client() for _ in range(8)]
    spread(server, lambda: clients.append(account.client()))
    rows = [row for row in server.rows("device", "show", "where-1") if row["what"] == "connection"]
    assert sorted(row["detail"] for row in rows) == ["worker w1", "worker w2"]
    assert {(row["place"], row["id"], row["state"]) for row in rows} == {("aws", "127.0.0.1", "connected")}


def test_a_device_of_a_name_that_looks_encoded_is_itself(server: RunningServer) -> None:
    until_workers_are_ready(server)
    for name in ("pump%41", "pumpA"):
        server.run("hub", "device", "create", name)
    server.run("hub", "device", "rm", "pump%41", "--yes")
    assert [row["device"] for row in server.rows("hub", "device", "ls")] == ["pumpA"]


def looking_on(server: RunningServer, *command: str) -> subprocess.Popen[str]:
    """Start a command that goes on, and return it when it has begun."""
    environment = clean_environment(BIRTHMARK_DATA=str(server.data), HOME=str(server.data.parent))
    pipe = subprocess.PIPE
    started = subprocess.Popen([BIRTHMARK, *command], stdout=pipe, stderr=pipe, text=True, env=environment)
    assert started.stderr is not None
    assert started.stderr.readline().startswith("Watching. ")
    return started


def test_who_looks_on_while_a_worker_is_away_sees_what_passes_at_it_later(
    server: RunningServer, account: Account
) -> None:
    hit(below(server)["worker 1"], signal.SIGKILL)
    watching = looking_on(server, "aws", "monitor", "later/#", "--json")
    until_workers_are_ready(server)
    clients = [account.client() for _ in range(8)]
    spread(server, lambda: clients.append(account.client()))
    time.sleep(0.5)  # it joins within 0.2 s
    for number, client in enumerate(clients):
        publish(client, f"later/{number}", "x")
    assert watching.stdout is not None
    seen = {json.loads(watching.stdout.readline())["topic"] for _ in clients}
    started_anew(server)
    time.sleep(0.5)
    publish(account.client(), "later/still", "x")
    assert json.loads(watching.stdout.readline())["topic"] == "later/still"
    watching.send_signal(signal.SIGINT)
    watching.communicate(timeout=PATIENCE_S)
    assert seen == {f"later/{number}" for number in range(len(clients))}


def test_whoever_is_cut_off_is_told_what_to_type_and_the_log_has_no_traceback(server: RunningServer) -> None:
    until_workers_are_ready(server)
    watching = [looking_on(server, "aws", "monitor", "#"), looking_on(server, "hub", "monitor", "--follow")]
    workers = below(server)
    for name in ("worker 1", "worker 2"):
        hit(workers[name], signal.SIGKILL)
    asked = server.attempt("hub", "device", "ls")
    told = [one.communicate(timeout=PATIENCE_S)[1] for one in watching] + ([asked.stderr] if asked.returncode else [])
    for text in told:
        assert "birthmark env --wait 60" in text
        assert "HTTP status" not in text
    until_workers_are_ready(server)
    assert "Traceback" not in server.log()


def test_calls_that_wait_keep_nobody_waiting(server: RunningServer) -> None:
    until_workers_are_ready(server)
    server.run("hub", "device", "create", "sleeper")
    environment = clean_environment(BIRTHMARK_DATA=str(server.data), HOME=str(server.data.parent))
    command = [BIRTHMARK, "hub", "method", "sleeper", "reboot", "--connect-timeout", "60"]
    quiet = subprocess.DEVNULL
    calls = [subprocess.Popen(command, stdout=quiet, stderr=quiet, env=environment) for _ in range(8)]
    time.sleep(3)
    began = time.monotonic()
    assert readiness(server)[0] == HTTPStatus.OK
    assert server.rows("hub", "device", "ls")
    took = time.monotonic() - began
    for call in calls:
        assert call.poll() is None
        call.kill()
        call.wait()
    assert took < 3


def test_a_server_that_stops_ends_who_looks_on_in_order(server: RunningServer) -> None:
    until_workers_are_ready(server)
    watching = [looking_on(server, "aws", "monitor", "#"), looking_on(server, "hub", "monitor", "--follow")]
    server.stop()
    for one in watching:
        assert "Traceback" not in one.communicate(timeout=PATIENCE_S)[1]
    assert "Traceback" not in server.log()
    server.start()


def test_several_workers_on_sqlite_are_refused_by_the_sentence_that_helps(
    server: RunningServer, tmp_path: Path
) -> None:
    done = server.attempt("serve", "--data", str(tmp_path / "data"), "--workers", "2", BIRTHMARK_DATABASE="")
    assert done.returncode
    assert "several workers need PostgreSQL" in done.stderr
