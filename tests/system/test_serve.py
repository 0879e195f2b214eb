"""`birthmark serve` and the commands beside it, as an operator meets them."""

import json
import os
import shutil
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from support.azure.clients import a_file_device, run_app
from support.server.servers import BIRTHMARK, RunningServer, a_new_server, a_server, clean_environment, free_address

pytestmark = pytest.mark.system


def serve(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [BIRTHMARK, "serve", *options]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=clean_environment(**environment), check=False
    )


def test_a_taken_port_is_named_with_what_to_do(tmp_path: Path) -> None:
    address = free_address()
    with socket.socket() as sock:
        sock.bind((address, 8883))
        sock.listen()
        done = serve("--data", str(tmp_path / "data"), "--listen", address)
    assert done.returncode == 5
    assert f"Port 8883 on {address} is in use" in done.stderr
    assert "net.port_taken" in done.stderr
    assert "ss -ltnp" in done.stderr


def test_a_data_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = serve("--data", str(blocked / "data"), "--listen", free_address())
    assert done.returncode == 5
    assert "server.data_directory_not_writable" in done.stderr
    assert str(blocked / "data") in done.stderr


def test_a_second_server_on_the_same_directory_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with a_server(tmp_path, is_warm=False) as server:
        done = serve("--data", str(server.data), "--listen", free_address())
        assert done.returncode == 1
        assert "server.data_directory_in_use" in done.stderr
        assert server.rows("dps", "ls")
        assert json.loads(server.run("env", "--format", "json").stdout) == server.endpoints
        lines = server.run("env", "--format", "dotenv").stdout.splitlines()
        assert dict(line.split("=", 1) for line in lines).items() <= server.environment.items()


def test_whom_the_servers_files_are_closed_to_has_the_roots_written_by_the_shell(tmp_path: Path) -> None:
    with a_server(tmp_path) as server:
        for wanted in ("in the way", str(tmp_path / "elsewhere")):
            (tmp_path / "said").write_text(server.run("env", "--files", wanted).stdout)
            told = (
                'eval "$(cat said)"; cd /; cat "$NODE_EXTRA_CA_CERTS"; test -f "$SSL_CERT_FILE"; printenv SSL_CERT_FILE'
            )
            done = subprocess.run(["sh", "-euc", told], cwd=tmp_path, capture_output=True, text=True, check=True)
            trust, place = done.stdout.strip().rsplit("\n", 1)
            assert trust + "\n" == (server.data / "trust.pem").read_text()
            assert Path(place) == tmp_path / wanted / "bundle.pem"


def test_a_second_server_on_the_same_database_is_refused_until_the_first_is_gone(
    tmp_path: Path, database_url: str
) -> None:
    with a_server(tmp_path, f'database = "{database_url}"\n', is_warm=False) as server:
        second = RunningServer(tmp_path / "second", free_address(), server.config)
        shutil.copytree(server.data, second.data, ignore=shutil.ignore_patterns("*.sock"))
        done = serve("--data", str(second.data), "--listen", second.address, "--database", database_url)
        assert done.returncode == 1
        assert "store.database_in_use" in done.stderr
        server.run("pki", "user", "create", "before", "--any-name")
        server.kill()
        second.start()
        second.run("pki", "user", "create", "after", "--any-name")
        second.run("server", "audit", "verify")
        assert second.stop() == 0
        server.start()


def test_a_mistake_in_the_configuration_is_named(tmp_path: Path) -> None:
    config = tmp_path / "server.toml"
    config.write_text("[ports]\nmqttt = 1\n")
    done = serve("--config", str(config))
    assert done.returncode == 2
    assert "mqttt" in done.stderr


def test_the_first_start_makes_what_is_secret_readable_by_its_owner_only(tmp_path: Path) -> None:
    with a_server(tmp_path, is_warm=False) as server:
        assert stat.S_IMODE(server.data.stat().st_mode) == 0o700
        for name in ("birthmark.db", "operator.token", "est.seed", "endpoints.json", "tls/server.key"):
            assert stat.S_IMODE((server.data / name).stat().st_mode) == 0o600, name
        keys = list(server.data.rglob("*.key"))
        assert keys
        assert all(b"ENCRYPTED" in key.read_bytes() for key in keys)
        token = (server.data / "operator.token").read_text().strip()
        assert token not in server.log()


def test_a_second_start_serves_the_same_scope_root_and_credentials(tmp_path: Path) -> None:
    with a_server(tmp_path, is_warm=False) as server:
        first, root = dict(server.endpoints), (server.data / "trust.pem").read_text()
        assert server.stop() == 0
        server.start()
        assert server.endpoints == first
        assert (server.data / "trust.pem").read_text() == root


def test_the_service_manager_hears_when_it_answers(tmp_path: Path) -> None:
    address, manager = free_address(), str(tmp_path / "manager")
    command = [BIRTHMARK, "serve", "--data", str(tmp_path / "data"), "--listen", address]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(manager)
        listening.settimeout(30)
        with subprocess.Popen(
            command, env=clean_environment(NOTIFY_SOCKET=manager), stdout=subprocess.DEVNULL
        ) as serving:
            assert listening.recv(100) == b"READY=1"
            socket.create_connection((address, 8883)).close()
            serving.terminate()


def test_endpoints_json_has_every_promised_name_and_absolute_paths(tmp_path: Path) -> None:
    with a_server(tmp_path, is_warm=False) as server:
        printed = json.loads(server.run("env", "--format", "json").stdout)
        assert printed == server.endpoints == json.loads((server.data / "endpoints.json").read_text())
        assert set(printed) == {"trust_bundle", "est", "dps", "iothub", "aws", "health_url"}
        assert set(printed["aws"]) == {
            "endpoint_url",
            "data_endpoint",
            "region",
            "account_id",
            "access_key_id",
            "secret_access_key",
        }
        assert all(printed["aws"].values())
        assert Path(printed["trust_bundle"]).is_absolute()


def test_commands_say_what_to_do_when_no_server_runs(tmp_path: Path) -> None:
    done = RunningServer(tmp_path / "data", "127.0.0.1").attempt("dps", "ls")
    assert done.returncode == 5
    assert "birthmark serve --data" in done.stderr


def test_the_operator_interface_wants_the_token_of_the_data_directory(tmp_path: Path) -> None:
    with a_server(tmp_path, is_warm=False) as server:
        (server.data / "operator.token").write_text("another\n")
        done = server.attempt("dps", "ls")
        assert done.returncode == 4
        assert "operator.token_refused" in done.stderr


def test_why_works_after_the_server_has_stopped(tmp_path: Path) -> None:
    with a_server(tmp_path, is_warm=False) as server:
        device = a_file_device(tmp_path, "late-1")
        assert run_app(server, device).returncode != 0
        server.why("late-1")
        server.stop()
        assert server.why("late-1")["code"] == "dps.not_enrolled"


def test_another_hub_is_made_linked_and_assigned(tmp_path: Path) -> None:
    with a_server(tmp_path, 'names = ["hub2.example"]', is_warm=False) as server:
        server.run("hub", "create", "hub-2", "--host", "hub2.example")
        server.run("dps", "link", "hub-2")
        assert server.rows("dps", "ls")[0]["linked_hubs"] == [server.address, "hub2.example"]
        assert server.attempt("hub", "create", "hub-2", "--host", "x.example").returncode == 1
        server.run("dps", "create", "second")
        assert [row["name"] for row in server.rows("dps", "ls")] == ["birthmark", "second"]
        server.run("hub", "rm", "hub-2", "--yes")
        assert server.rows("dps", "ls")[0]["linked_hubs"] == [server.address]


@pytest.mark.integration
def test_a_server_on_postgresql_serves_the_same_device_after_kill_9(tmp_path: Path, postgres_url: str) -> None:
    with a_server(tmp_path, f'database = "{postgres_url}"', is_warm=False) as server:
        device = a_file_device(tmp_path, "pg-1")
        server.run("device", "enroll", "pg-1", "--cert", str(device.certificate_file))
        done = run_app(server, device)
        assert done.returncode == 0, done.stderr
        server.kill()
        server.start()
        assert len(server.rows("hub", "messages", "pg-1")) == 10
        assert run_app(server, device).returncode == 0


def test_a_missing_pkcs11_library_is_named(tmp_path: Path) -> None:
    server = RunningServer(tmp_path / "data", "127.0.0.1")
    done = server.attempt("chip", "ls", "--module", "/nowhere/libsofthsm2.so")
    assert done.returncode == 5
    assert "keys.module_missing" in done.stderr
    assert "/nowhere/libsofthsm2.so" in done.stderr


def test_a_wrong_pin_is_said_to_be_wrong(tmp_path: Path) -> None:
    server = RunningServer(tmp_path / "data", "127.0.0.1")
    lines = server.run("chip", "simulate", str(tmp_path / "chip"), "--json").stdout
    environment = {k: v for k, v in json.loads(lines).items() if k.isupper()}
    pin = tmp_path / "wrong-pin"
    pin.touch(mode=0o600)
    pin.write_text("0000wrong\n")
    done = server.attempt("chip", "cert", "0xF0000100", **(environment | {"BIRTHMARK_PIN_FILE": str(pin)}))
    assert done.returncode == 4
    assert "keys.pin_wrong" in done.stderr
    assert "0000wrong" not in done.stderr
    noted = server.attempt("why", "keys.pin_wrong", "--json")
    assert "keys.pin_wrong" in noted.stdout


def test_an_unwritable_directory_is_named_with_its_reason(tmp_path: Path) -> None:
    if os.geteuid() == 0:  # root may write everywhere but here
        locked = Path("/proc/birthmark")
    else:
        locked = tmp_path / "locked" / "data"
        locked.parent.mkdir(mode=0o500)
    done = serve("--data", str(locked), "--listen", free_address())
    assert done.returncode == 5
    assert "server.data_directory_not_writable" in done.stderr
    assert str(locked) in done.stderr


def test_why_reads_the_data_directory_without_changing_it(tmp_path: Path) -> None:
    with a_server(tmp_path, is_warm=False) as server:
        assert run_app(server, a_file_device(tmp_path, "late-2")).returncode != 0
        server.why("late-2")
        server.stop()
        before = {path.name: path.read_bytes() for path in server.data.glob("birthmark.db*")}
        assert server.why("late-2")["code"] == "dps.not_enrolled"
        assert {path.name: path.read_bytes() for path in server.data.glob("birthmark.db*")} == before


def test_debug_logs_say_what_happens_and_nothing_of_the_libraries(tmp_path: Path) -> None:
    server = RunningServer(tmp_path / "data", free_address(), log_level="DEBUG").start()
    server.run("hub", "create", "hub-2", "--host", "hub2.example")
    server.run("hub", "rm", "hub-2", "--yes")
    server.stop()
    events = [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]
    assert any(event.get("kind") == "iothub.hub_deleted" for event in events)
    assert not any("upgrade" in event["event"].lower() for event in events)


def hosts_of(server: RunningServer) -> set[str]:
    return {server.endpoints["dps"]["host"], server.endpoints["iothub"]["host"]}


def test_a_start_that_cannot_bind_gives_the_services_no_name(tmp_path: Path) -> None:
    address = free_address()
    with socket.socket() as sock:
        sock.bind((address, 8883))
        sock.listen()
        said = serve("--data", str(tmp_path / "data"), "--listen", address).stderr
    assert "net.port_taken" in said
    assert f"`birthmark serve --data {tmp_path / 'data'} --listen 127.0.0.2`" in said, "the same directory"
    with a_server(tmp_path, is_warm=False) as server:
        assert hosts_of(server) == {server.address}


def test_the_services_follow_the_host_until_somebody_uses_them_and_then_it_is_said(tmp_path: Path) -> None:
    server = RunningServer(tmp_path / "data", free_address()).start()
    server.stop()
    server.address = free_address()
    server.start()
    assert hosts_of(server) == {server.address}
    assert server.rows("dps", "ls")[0]["linked_hubs"] == [server.address]
    device = a_file_device(tmp_path, "keeps-its-host")
    server.run("device", "enroll", "--cert", str(device.certificate_file))
    assert run_app(server, device).returncode == 0
    server.stop()
    used, server.address = server.address, free_address()
    server.start()
    assert hosts_of(server) == {used}
    assert f"Start the server with `--host {used}`" in server.log()
    assert "keeps-its-host" in server.run("device", "ls", "--json").stdout
    server.stop()


def test_the_name_that_devices_are_told_stays_and_the_next_start_says_so(tmp_path: Path) -> None:
    server = RunningServer(
        tmp_path / "data", free_address(), environment_of_server={"BIRTHMARK_HOST": "localhost"}
    ).start()
    server.run("hub", "device", "create", "knows-localhost")
    server.stop()
    server.environment_of_server = {}
    server.start()
    assert hosts_of(server) == {"localhost"}
    assert f"devices use the host localhost, not {server.address}" in server.log()
    server.stop()


def test_a_hub_that_the_certificate_does_not_name_is_warned_of(tmp_path: Path) -> None:
    with a_server(tmp_path, 'names = ["hub2.example"]\n', is_warm=False) as server:
        assert "Warning" not in server.run("hub", "create", "second", "--host", "hub2.example").stderr
        warned = server.run("hub", "create", "third", "--host", "hub3.example").stderr
        assert "--host hub3.example" in warned
        fitting = warned.partition("Names in the certificate that no hub uses: ")[2]
        assert "localhost" in fitting
        assert "hub2.example" not in fitting


@pytest.mark.parametrize("line", ["mqtt = 99999", "https = 70000", "est = -1", "health = 0"])
def test_a_port_that_is_none_is_a_mistake_of_the_configuration(tmp_path: Path, line: str) -> None:
    config = tmp_path / "server.toml"
    config.write_text(f"[ports]\n{line}\n")
    done = serve("--data", str(tmp_path / "data"), "--config", str(config), "--listen", free_address())
    assert done.returncode == 2
    assert "line 2: ports." in done.stderr


def test_a_server_without_any_port_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    config = tmp_path / "server.toml"
    config.write_text('only = ["est"]\n[ports]\nest = 0\nhttps = 0\nhttps_also = 0\n')
    done = serve("--data", str(tmp_path / "data"), "--config", str(config), "--listen", free_address())
    assert done.returncode == 2
    assert "every port is 0" in done.stderr


def test_its_status_is_told_and_what_is_not_ready(tmp_path: Path) -> None:
    with a_new_server(tmp_path) as server:
        (row,) = server.rows("server", "status")
        assert (row["ready"], row["hub"], row["est"]) == (True, server.address, server.endpoints["est"]["url"])
        server.stop()
        stopped = server.attempt("server", "status")
        assert (stopped.returncode, "operator.server_not_running" in stopped.stderr) == (5, True)
        server.start()


def test_a_new_server_loads_none_of_the_libraries_that_only_some_need(tmp_path: Path) -> None:
    with a_server(tmp_path, is_warm=False) as server:
        mapped = Path(f"/proc/{server.pid}/maps").read_text()
        assert "uvloop" in mapped
        assert not [name for name in ("asyncpg", "pkcs11", "re2") if f"/{name}/" in mapped]
