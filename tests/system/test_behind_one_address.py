"""A whole fleet behind one address (NAT), with the limits as they come: nobody is in anybody's way."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.agent.rollover_fleet import Fleet
from support.pki.est_curl import EstByCurl
from support.server.servers import RunningServer, a_new_server

pytestmark = pytest.mark.system


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with a_new_server(tmp_path) as running:
        yield running


def test_a_fleet_enrolls_and_renews_at_once(server: RunningServer, tmp_path: Path) -> None:
    fleet = Fleet.enrolled(server, tmp_path / "devices", 300, at_once=100)
    fleet.renew(fleet.devices)
    fleet.renew(fleet.devices)
    assert fleet.failures == []
    assert all(device.is_verified() for device in fleet.devices)


def test_a_device_that_guesses_passwords_keeps_no_other_from_renewing(server: RunningServer, tmp_path: Path) -> None:
    fleet = Fleet.enrolled(server, tmp_path / "devices", 10)
    guessing = EstByCurl(server, tmp_path)
    assert {guessing.status("device-1", "device-1:wrong") for _ in range(12)} >= {429}
    fleet.renew(fleet.devices)
    assert fleet.failures == []


def test_a_device_that_guesses_passwords_keeps_no_new_one_out(server: RunningServer, tmp_path: Path) -> None:
    secret = tmp_path / "chosen"
    secret.write_text("chosen by somebody\n")
    secret.chmod(0o600)
    server.run("pki", "user", "create", "line-9", "--device", "new-9", "--password-file", str(secret))
    made = ":".join(server.est_credential("new-8"))
    device = EstByCurl(server, tmp_path)
    for user in ("guess-1", "guess-2", "new-8"):
        # Ten at once, then one in six seconds: a slow machine takes more than twelve to be too fast.
        answers = [device.status("guess", f"{user}:wrong")]
        while answers[-1] == 401 and len(answers) < 60:
            answers.append(device.status("guess", f"{user}:wrong"))
        assert (answers[0], answers[-1]) == (401, 429)
    for name, password in (("new-8", made), ("new-9", "line-9:chosen by somebody")):
        assert device.status(name, password) == 200
