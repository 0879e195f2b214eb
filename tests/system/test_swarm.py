"""Simulated devices at a real server: what they do, what they do wrong, and what is said about it."""

import csv
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from support.agent.swarm_world import SwarmRun, standing, swarm
from support.server.servers import RunningServer, a_server, clean_environment, free_address

pytestmark = pytest.mark.system

QUICK = ["--to", "local", "--ramp", "100", "--interval", "1s"]
MISBEHAVING = """
duration = "20s"
[target]
to = "{to}"
mqtt = "{mqtt}"
[group.meters]
devices = {devices}
ramp = 100
interval = "2s"
patience = "15s"
[group.meters.misbehave]
other_name = "1%"
other_topic = "1%"
oversized = "1%"
garbage = "1%"
half_open = "1%"
expired = "1%"
clock_skew = "1%"
no_ack = "1%"
duplicate = "1%"
"""
AMQP = """
duration = "11s"
[group.amqp]
devices = 30
ramp = 100
interval = "1s"
transport = "amqp"
storm = ["7s"]
[group.mqtt]
devices = 10
ramp = 100
interval = "1s"
"""
RENEWING = """
duration = "16s"
[identities]
from = "est"
directory = "by-est"
[group.meters]
devices = 40
ramp = 50
interval = "2s"
renew = "6s"
stay = "5s"
away = "1s"
cut = "20s"
[group.meters.misbehave]
revoked = "5%"
renew_other = "5%"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_server(tmp_path_factory.mktemp("swarm"), is_warm=False) as running:
        yield running


@pytest.fixture
def place(server: RunningServer, tmp_path: Path) -> Path:
    """A directory of its own, from which the server's data directory is seen."""
    (tmp_path / "data").symlink_to(server.data)
    return tmp_path


def lost(run: SwarmRun) -> list[object]:
    return [one for one in run.devices if not one["held"]]


def test_devices_register_connect_and_send_and_the_hub_has_it(server: RunningServer, place: Path) -> None:
    run = swarm(place, "--devices", "100", *QUICK, "--duration", "8s")
    assert (run.code, lost(run)) == (0, [])
    assert run.summary["registrations"] == run.summary["connects"] == run.summary["connected_at_the_end"] == 100
    assert run.summary["acknowledged"] > 300
    one = run.devices[7]  # the end may come between a message and its acknowledgement
    assert one["acknowledged"] <= len(server.rows("hub", "messages", one["device"])) <= one["sent"]
    assert run.events[0]["event"] == "progress"
    assert run.events[-1] == {"event": "summary", **run.summary}


def test_the_same_devices_go_to_a_service_that_is_named_as_a_cloud_s_is(server: RunningServer, place: Path) -> None:
    assert swarm(place, "--devices", "10", *QUICK, "--duration", "2s").code == 0
    known = server.environment
    named = {name: known[name] for name in ("PROVISIONING_HOST", "PROVISIONING_IDSCOPE", "SSL_CERT_FILE")}
    cloud = ("--to", "azure", "--ramp", "100", "--interval", "1s", "--yes", "--duration", "4s")
    run = swarm(place, "--devices", "10", *cloud, environment=named)
    assert (run.code, run.summary["registrations"], lost(run)) == (0, 10, [])
    hub = swarm(place, "--devices", "10", *cloud, "--register", "none", "--host", server.address, environment=named)
    assert (hub.code, hub.summary["registrations"], lost(hub)) == (0, 0, [])


def test_a_second_run_shows_the_same_certificates(server: RunningServer, place: Path) -> None:
    for _ in range(2):
        assert swarm(place, "--devices", "10", *QUICK, "--duration", "3s", "--register", "mqtt").code == 0
        found = {path.name: path.read_bytes() for path in (place / "swarm-devices").iterdir()}
        assert len([name for name in found if name.startswith("device-")]) == 10
        assert {path.stat().st_mode & 0o777 for path in (place / "swarm-devices").iterdir()} == {0o600}
    again = {path.name: path.read_bytes() for path in (place / "swarm-devices").iterdir()}
    assert again == found
    assert server.rows("dps", "ca", "ls")


def test_https_registers_too(place: Path) -> None:
    run = swarm(place, "--devices", "20", *QUICK, "--register", "https", "--duration", "8s")
    assert (run.code, run.summary["registrations"], lost(run)) == (0, 20, [])


def test_groups_over_amqp_and_mqtt_send_to_one_hub(server: RunningServer, place: Path) -> None:
    run = swarm(place, scenario=AMQP)
    assert (run.code, run.summary["errors"], lost(run)) == (0, {}, [])
    assert (run.summary["registrations"], run.summary["cut"], run.summary["connected_at_the_end"]) == (40, 30, 40)
    one = run.devices[7]
    assert one["group"] == "amqp"
    assert 3 <= one["acknowledged"] <= len(server.rows("hub", "messages", one["device"])) <= one["sent"]


def test_amqp_is_refused_at_aws_before_anything_is_made(place: Path) -> None:
    run = swarm(place, "--to", "local-aws", scenario=AMQP)
    assert run.code == 2
    assert "AWS has no AMQP" in run.stderr
    assert not (place / "swarm-devices").exists()


@pytest.mark.parametrize(("to", "mqtt", "devices"), [("local", "3.1.1", 100), ("local-aws", "5", 50)])
def test_every_misbehavior_meets_what_it_deserves(place: Path, to: str, mqtt: str, devices: int) -> None:
    run = swarm(place, scenario=MISBEHAVING.format(to=to, mqtt=mqtt, devices=devices))
    assert run.by_fault == {
        **dict.fromkeys(("other_name", "other_topic", "oversized", "garbage", "half_open"), "stopped"),
        **dict.fromkeys(("expired", "clock_skew", "duplicate"), "stopped"),
        "no_ack": "tolerated",
    }
    assert (run.code, lost(run)) == (0, [])


def test_certificates_are_renewed_and_nobody_gets_another_s(place: Path) -> None:
    before = swarm(place, scenario=RENEWING.replace("16s", "1s"))
    leaves = {path.name: path.read_bytes() for path in (place / "by-est").glob("meters-*")}
    run = swarm(place, scenario=RENEWING)
    renewed = [one for one in run.devices if one["renewals"]]
    assert len(renewed) == 36
    assert all(
        (place / "by-est" / f"{one['device']}.pem").read_bytes() != leaves[f"{one['device']}.pem"] for one in renewed
    )
    assert run.by_fault == {"revoked": "stopped", "renew_other": "stopped"}
    assert (run.code, lost(run), before.summary["devices"]) == (0, [], 40)


def test_a_certificate_is_renewed_at_a_share_of_its_life(tmp_path: Path) -> None:
    scenario = """
    duration = "22s"
    [identities]
    from = "est"
    [group.meters]
    devices = 10
    ramp = 50
    interval = "2s"
    renew = "50%"
    """
    with a_server(tmp_path, "[est]\ndevice_lifetime_s = 20\n"):
        run = swarm(tmp_path, scenario=scenario)
    assert (run.code, lost(run)) == (0, [])
    assert all(1 <= one["renewals"] <= 3 for one in run.devices)


def test_a_target_that_does_not_do_what_is_expected_is_told(place: Path) -> None:
    scenario = MISBEHAVING.format(to="local", mqtt="3.1.1", devices=10)
    only = scenario.partition("[group.meters.misbehave]")[0]
    expecting = '[group.meters.misbehave]\ngarbage = "10%"\n[group.meters.expect]\ngarbage = "tolerated"\n'
    run = swarm(place, "--duration", "5s", scenario=only + expecting)
    assert run.code == 1
    (broken,) = [one for one in run.devices if not one["held"]]
    assert broken["why"] == "garbage: stopped, expected tolerated"


def test_ctrl_c_ends_a_run_in_order_with_its_report(place: Path) -> None:
    def all_send(event: Mapping[str, Any]) -> bool:
        return bool(event["messages"] >= 20 and event["states"].keys() <= {"connected", "sending"})

    run = swarm(place, "--devices", "20", *QUICK, "--duration", "500s", until=all_send)
    assert (run.code, run.summary["stopped"]) == (0, True)
    assert run.summary["seconds"] < 250


def test_reports_are_for_programs_tables_and_people(server: RunningServer, place: Path) -> None:
    more = ("--report", str(place / "run.html"), "--report", str(place / "run.csv"))
    run = swarm(place, "--devices", "10", *QUICK, "--duration", "4s", *more)
    rows = list(csv.DictReader((place / "run.csv").read_text().splitlines()))
    assert [row["device"] for row in rows] == [one["device"] for one in run.devices]
    page = (place / "run.html").read_text()
    pictures = re.findall(r"<svg.*?</svg>", page)
    assert len(pictures) >= 5
    assert all(ET.fromstring(one) is not None for one in pictures)
    assert "http" not in page
    shown = server.rows("swarm", "report", str(place / "report.json"), "--out", str(place / "again.html"))
    assert shown == [run.summary]
    assert (place / "again.html").read_text() == page


def test_an_unknown_key_ends_it_before_anything_is_made(place: Path) -> None:
    run = swarm(place, scenario="[group.meters]\ndevices = 5\nintervals = 1\n")
    assert run.code == 2
    assert "swarm.toml:3: group.meters.intervals: is not known; did you mean interval?" in run.stderr
    assert not (place / "swarm-devices").exists()


def test_without_a_server_it_says_how_to_start_one(tmp_path: Path) -> None:
    run = swarm(tmp_path, "--devices", "5", *QUICK)
    assert run.code == 5
    assert "birthmark serve" in run.stderr


def test_a_cloud_is_not_driven_unasked(tmp_path: Path) -> None:
    run = swarm(tmp_path, "--devices", "5", "--to", "azure", "--id-scope", "0ne0")
    assert run.code == 6
    assert "global.azure-devices-provisioning.net" in run.stderr


def test_a_target_that_cannot_be_reached_is_told_before_keys_are_made(tmp_path: Path) -> None:
    run = swarm(tmp_path, "--devices", "5", "--to", "aws", "--host", free_address(), "--yes")
    assert run.code == 5
    assert not (tmp_path / "swarm-devices").exists()


def test_devices_come_back_to_a_server_that_was_away(tmp_path: Path) -> None:
    server = RunningServer(tmp_path / "data", free_address()).start()

    def restart(_process: "subprocess.Popen[str]") -> None:
        assert server.stop() == 0
        server.start()

    def all_are_back(event: Mapping[str, Any]) -> bool:
        return bool(event["errors"]) and standing(event) == 80

    try:
        run = swarm(tmp_path, "--devices", "80", *QUICK, "--duration", "500s", during=restart, until=all_are_back)
    finally:
        server.stop()
    assert (run.code, run.summary["connected_at_the_end"], lost(run)) == (0, 80, [])
    assert run.summary["lost"] > 0
    assert run.summary["errors"]


def test_what_was_over_or_revoked_is_made_anew_when_its_device_means_well(place: Path) -> None:
    by_ca = '[group.meters]\ndevices = 6\nramp = 50\ninterval = "1s"\npatience = "10s"\n'
    spoilt = f'{by_ca}[group.meters.misbehave]\nexpired = "50%"\n'
    assert swarm(place, "--duration", "5s", scenario=spoilt).summary["faults"] == {"expired: stopped": 3}
    run = swarm(place, "--duration", "4s", scenario=by_ca)
    assert (run.code, run.summary["connected_at_the_end"]) == (0, 6)
    by_est = ("--duration", "6s", "--from", "est", "--identities", "est")
    revoked = swarm(place, *by_est, scenario=spoilt.replace("expired", "revoked"))
    assert revoked.summary["faults"] == {"revoked: stopped": 3}
    run = swarm(place, *by_est, scenario=by_ca)
    assert (run.code, run.summary["connected_at_the_end"]) == (0, 6)


def test_a_wrong_password_at_est_is_told_once(place: Path) -> None:
    (place / "word").touch(mode=0o600)
    (place / "word").write_text("wrong")
    est = '[identities]\nfrom = "est"\nest_user = "nobody"\nest_password_file = "word"\n'
    run = swarm(place, scenario=f"{est}[group.meters]\ndevices = 50\n")
    assert (run.code, run.stderr.count("est.server_unauthenticated")) == (4, 1)


def test_a_reader_that_goes_away_ends_the_run(server: RunningServer, place: Path) -> None:
    environment = clean_environment(HOME=str(place), BIRTHMARK_DATA=str(server.data))
    line = "birthmark swarm run --devices 5 --to local --duration 100s --json | head -n 1"
    done = subprocess.run(["bash", "-c", line], cwd=place, env=environment, capture_output=True, timeout=40, check=True)
    assert done.stdout.startswith(b'{"event": "progress"')
    assert b"Traceback" not in done.stderr


def test_a_user_may_have_made_the_ca(server: RunningServer, place: Path) -> None:
    environment = clean_environment(HOME=str(place), BIRTHMARK_DATA=str(server.data))
    line = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout own.key -out own.pem -days 30 "
        "-subj '/CN=Own swarm CA' -addext keyUsage=critical,keyCertSign,cRLSign && chmod 600 own.key"
    )
    subprocess.run(["bash", "-c", line], cwd=place, env=environment, check=True, capture_output=True)
    ca = ("--ca-cert", "own.pem", "--ca-key", "own.key")
    run = swarm(place, "--devices", "10", *QUICK, *ca, "--duration", "4s")
    assert (run.code, lost(run)) == (0, [])
    assert not (place / "swarm-devices" / "ca.pem").exists()
