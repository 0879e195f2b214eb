"""Certificates, Azure's new way: with the registration, and by the hub over MQTT (DPS and IoT Hub 2025 and later)."""

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from azure_credentials import Key, Operator, Shown, at_hub, files_of, issue, kept, register
from pki_builders import a_device
from servers import RunningServer

pytestmark = pytest.mark.system
POLICY = {"namespaceName": "ours", "certificateAuthorityName": "devices", "certificatePolicyName": "device"}
_NUMBERS = itertools.count(1)


@pytest.fixture
def operator(server: RunningServer) -> Operator:
    return Operator(server)


def a_registered(server: RunningServer, directory: Path) -> tuple[str, Key, Shown, Shown]:
    """Return a device that registered with a request: its name, its key, what it came with and what it was issued."""
    name, key = f"issued-{next(_NUMBERS)}", Key()
    holder = a_device(common_name=name, now=datetime.now(UTC), lifetime=timedelta(days=1))
    Operator(server).enroll(name, holder, **POLICY)
    bootstrap = files_of(directory, holder, name)
    answer = register(server, bootstrap, name, key.csr(name))
    assert answer.status == 200, answer
    chain = answer.body["registrationState"]["issuedCertificateChain"]
    return name, key, bootstrap, kept(directory, chain, key)


def test_a_device_is_issued_a_certificate_as_it_registers_and_connects_by_it(
    server: RunningServer, tmp_path: Path
) -> None:
    name, _, _, issued = a_registered(server, tmp_path)
    with at_hub(server, issued, name) as device:
        assert device.subscribe("$iothub/credentials/res/#") == (1,)


def test_the_hub_issues_another_and_the_session_that_asked_stays(
    server: RunningServer, operator: Operator, tmp_path: Path
) -> None:
    name, _, _, issued = a_registered(server, tmp_path)
    new = Key()
    with at_hub(server, issued, name) as device:
        assert device.subscribe("$iothub/credentials/res/#") == (1,)
        accepted, done = issue(device, name, new.csr(name), rid="42")
        assert (accepted.status, accepted.rid) == (202, "42")
        assert done is not None
        assert (done.status, done.rid) == (200, "42"), done
        fresh = kept(tmp_path, done.body["certificates"], new)
        assert operator.thumbprints(name) == (issued.thumbprint, fresh.thumbprint)
        assert not device.is_over
    with at_hub(server, issued, name):  # the old one counts until the new one is used
        pass
    with at_hub(server, fresh, name):
        assert operator.thumbprints(name) == (fresh.thumbprint, None)
    assert at_hub(server, issued, name).code == 5
