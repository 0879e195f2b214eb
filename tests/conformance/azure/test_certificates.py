"""Certificates, Azure's new way: with the registration, and by the hub over MQTT (DPS and IoT Hub 2025 and later)."""

import base64
import hashlib
import hmac
import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from birthmark.testing.cloud import Cloud
from support.azure.clients import run_python
from support.azure.credentials import Key, Operator, Shown, at_hub, files_of, issue, kept, register
from support.azure.sas_tokens import make_sas
from support.pki.pki_builders import a_ca, a_device
from support.server.servers import RunningServer, a_server

pytestmark = pytest.mark.system
SDK = """
import os
from azure.iot.device import IoTHubDeviceClient, X509
x509 = X509(cert_file=os.environ["CERTIFICATE"], key_file=os.environ["KEY"])
client = IoTHubDeviceClient.create_from_x509_certificate(
    hostname=os.environ["PROVISIONING_HOST"], device_id=os.environ["DEVICE"], x509=x509,
    server_verification_cert=open(os.environ["SSL_CERT_FILE"]).read())
client.connect()
client.send_message("hello")
client.shutdown()
print("sent")
"""
POLICY = {"namespaceName": "ours", "certificateAuthorityName": "devices", "certificatePolicyName": "device"}
_NUMBERS = itertools.count(1)


@pytest.fixture
def operator(cloud: Cloud) -> Operator:
    return Operator(cloud)


def a_registered(server: RunningServer, directory: Path) -> tuple[str, Key, Shown, Shown]:
    """Return a device that registered with a request: its name, its key, what it came with and what it was issued."""
    name, key = f"issued-{next(_NUMBERS)}", Key()
    holder = a_device(common_name=name, now=datetime.now(UTC), lifetime=timedelta(days=1))
    Operator(server.cloud).enroll(name, holder, **POLICY)
    bootstrap = files_of(directory, holder, name)
    answer = register(server, bootstrap, name, key.csr(name))
    assert answer.status == 200, answer
    chain = answer.body["registrationState"]["issuedCertificateChain"]
    return name, key, bootstrap, kept(directory, chain, key)


def weak(name: str) -> str:
    """Return a request of an RSA key of 1024 bits."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    key = rsa.generate_private_key(65537, 1024)
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return base64.b64encode(made.public_bytes(Encoding.DER)).decode()


def unproven(name: str) -> str:
    """Return a request whose signature another key made."""
    der = bytearray(base64.b64decode(Key().csr(name)))
    der[-1] ^= 1
    return base64.b64encode(der).decode()


def test_an_enrollment_that_is_changed_otherwise_keeps_its_policy(
    server: RunningServer, operator: Operator, tmp_path: Path
) -> None:
    name = f"policied-{next(_NUMBERS)}"
    holder = a_device(common_name=name, now=datetime.now(UTC), lifetime=timedelta(days=1))
    enroll = ("device", "enroll", "--cert", str(files_of(tmp_path, holder, name).certificate))
    server.run(*enroll, "--issue", "device")
    assert server.rows(*enroll, "--issue", "device")[0]["outcome"] == "unchanged"
    server.run(*enroll, "--edge", "--update")
    told = operator.dps("GET", f"/enrollments/{name}")[1]
    assert (told["certificatePolicyName"], told["capabilities"]["iotEdge"]) == ("device", True)
    refused = server.attempt(*enroll, "--edge", "--issue", "ldevid")
    assert refused.returncode != 0
    assert "policy" in refused.stderr
    server.run(*enroll, "--edge", "--issue", "theirs/ca/ldevid", "--update")
    told = operator.dps("GET", f"/enrollments/{name}")[1]
    assert (told["namespaceName"], told["certificatePolicyName"]) == ("theirs", "ldevid")


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
        assert operator.thumbprints(name) == (fresh.thumbprint, fresh.thumbprint)
    assert at_hub(server, issued, name).code == 5


def test_the_sdk_connects_by_what_was_issued(server: RunningServer, tmp_path: Path) -> None:
    name, _, _, issued = a_registered(server, tmp_path)
    done = run_python(
        SDK,
        server.cloud.environment(CERTIFICATE=str(issued.certificate), KEY=str(issued.key), DEVICE=name),
    )
    assert done.stdout.strip() == "sent", done.stderr


@pytest.mark.parametrize(
    "policy",
    [
        POLICY,
        {"credentialPolicyName": "device"},
        {"clientCertificateIssuancePolicy": {"certificateAuthorityName": "ldevid"}},
    ],
)
def test_a_policy_is_kept_in_the_words_of_its_version(operator: Operator, policy: dict[str, Any]) -> None:
    name = f"worded-{next(_NUMBERS)}"
    operator.enroll(name, a_device(common_name=name), **policy)
    told = operator.dps("GET", f"/enrollments/{name}")[1]
    assert {key: told[key] for key in policy} == policy


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        ({"namespaceName": "ours", "certificatePolicyName": "device"}, "dps.enrollment_invalid"),
        ({"credentialPolicyName": "device", "certificatePolicyName": "ldevid"}, "dps.enrollment_invalid"),
        ({"credentialPolicyName": "nothing"}, "ca.issuing_policy_unknown"),
        ({"credentialPolicyName": "edge_ca"}, "ca.issuing_policy_unknown"),
        ({"credentialPolicyName": "server"}, "ca.issuing_policy_unknown"),
    ],
)
def test_a_policy_that_issues_nothing_to_devices_is_refused(
    server: RunningServer, operator: Operator, policy: dict[str, Any], code: str
) -> None:
    name = f"unworded-{next(_NUMBERS)}"
    pair = {"primary": {"certificate": a_device(common_name=name).certificate.pem()}}
    body = {"registrationId": name, "attestation": {"type": "x509", "x509": {"clientCertificates": pair}}}
    status, told = operator.dps("PUT", f"/enrollments/{name}", body | policy)
    assert status == 400
    assert server.why(told["trackingId"])["code"] == code


def test_a_registration_over_https_is_answered_with_the_chain_and_a_lookup_takes_no_request(
    server: RunningServer, operator: Operator, tmp_path: Path
) -> None:
    name, key = f"issued-{next(_NUMBERS)}", Key()
    holder = a_device(common_name=name, now=datetime.now(UTC), lifetime=timedelta(days=1))
    operator.enroll(name, holder, **POLICY)
    shown = files_of(tmp_path, holder, name)
    dps = server.endpoints["dps"]
    base = f"https://{dps['host']}:{dps['https_port']}/{dps['id_scope']}/registrations/{name}"

    def ask(method: str, path: str, body: Any = None) -> requests.Response:
        return requests.request(
            method,
            f"{base}{path}?api-version=2025-07-01-preview",
            json=body,
            cert=(str(shown.certificate), str(shown.key)),
            verify=server.endpoints["trust_bundle"],
            timeout=30,
        )

    body = {"registrationId": name, "csr": key.csr(name)}
    put = ask("PUT", "/register", body)
    assert put.status_code == 202, put.text
    first = ask("GET", f"/operations/{put.json()['operationId']}").json()["registrationState"]
    issued = kept(tmp_path, first["issuedCertificateChain"], key)
    assert operator.thumbprints(name) == (issued.thumbprint, issued.thumbprint)
    refused = ask("POST", "", body)
    assert (refused.status_code, refused.json()["errorCode"]) == (400, 400004)
    again = ask("GET", f"/operations/{put.json()['operationId']}").json()["registrationState"]
    assert again["issuedCertificateChain"] == first["issuedCertificateChain"]


def test_a_registration_that_is_made_again_with_the_same_key_is_given_the_same_certificate(
    server: RunningServer, tmp_path: Path
) -> None:
    name, key, bootstrap, issued = a_registered(server, tmp_path)
    again = register(server, bootstrap, name, key.csr(name)).body["registrationState"]["issuedCertificateChain"]
    assert kept(tmp_path, again, key).thumbprint == issued.thumbprint


def test_a_registration_with_another_key_takes_back_what_was_never_used(server: RunningServer, tmp_path: Path) -> None:
    name, _, bootstrap, issued = a_registered(server, tmp_path)
    new = Key()
    chain = register(server, bootstrap, name, new.csr(name)).body["registrationState"]["issuedCertificateChain"]
    fresh = kept(tmp_path, chain, new)
    rows = {row["thumbprint"]: row for row in server.rows("pki", "ls", name)}
    assert rows[issued.thumbprint]["reason"] == "superseded"
    assert at_hub(server, issued, name).code == 5
    with at_hub(server, fresh, name):
        pass


def test_a_registration_without_a_request_leaves_a_device_what_it_was_issued(
    server: RunningServer, operator: Operator, tmp_path: Path
) -> None:
    name, _, bootstrap, issued = a_registered(server, tmp_path)
    with at_hub(server, issued, name):
        pass
    told = register(server, bootstrap, name, None)
    assert "issuedCertificateChain" not in told.body["registrationState"]
    assert operator.thumbprints(name) == (issued.thumbprint, issued.thumbprint)
    with at_hub(server, issued, name):
        pass


def test_a_device_that_registers_by_a_key_has_a_certificate_afterwards(
    server: RunningServer, operator: Operator, tmp_path: Path
) -> None:
    name, key, group = f"keyed-{next(_NUMBERS)}", Key(), f"keys-{next(_NUMBERS)}"
    status, _ = operator.dps(
        "PUT",
        f"/enrollmentGroups/{group}",
        {"enrollmentGroupId": group, "attestation": {"type": "symmetricKey"}} | POLICY,
    )
    assert status == 200
    keys = operator.dps("POST", f"/enrollmentGroups/{group}/attestationmechanism")[1]["symmetricKey"]
    master = base64.b64decode(keys["primaryKey"])
    derived = hmac.digest(master, name.encode(), hashlib.sha256)
    resource = f"{server.endpoints['dps']['id_scope']}/registrations/{name}"
    token = make_sas(resource, derived, int(time.time()) + 600, "registration")
    chain = register(server, None, name, key.csr(name), token).body["registrationState"]["issuedCertificateChain"]
    issued = kept(tmp_path, chain, key)
    with at_hub(server, issued, name) as device:
        new = Key()
        _, done = issue(device, name, new.csr(name))
        assert done is not None
        assert done.status == 200


def test_a_device_of_a_group_is_issued_a_certificate_by_the_groups_policy(
    server: RunningServer, operator: Operator, tmp_path: Path
) -> None:
    name, key, group = f"grouped-{next(_NUMBERS)}", Key(), f"line-{next(_NUMBERS)}"
    now = datetime.now(UTC)
    maker = a_ca(now=now)
    file = tmp_path / "maker.pem"
    file.write_text(maker.certificate.pem())
    server.run("dps", "ca", "create", group, str(file))
    server.run("dps", "ca", "verify", group, "--without-proof")
    server.run("device", "enroll-group", group, "--ca-name", group, "--issue", "device")
    told = operator.dps("GET", f"/enrollmentGroups/{group}")[1]
    assert told["certificatePolicyName"] == "device"
    shown = files_of(tmp_path, a_device(maker, name, now=now, lifetime=timedelta(days=1)), name)
    chain = register(server, shown, name, key.csr(name)).body["registrationState"]["issuedCertificateChain"]
    with at_hub(server, kept(tmp_path, chain, key), name):
        pass


@pytest.mark.parametrize(
    ("csr", "code"),
    [
        (lambda name: Key().csr("another"), "dps.csr_name"),
        (lambda name: "not base64!", "pki.csr_malformed"),
        (lambda name: "MAUCAwEAAQ==", "pki.csr_malformed"),
        (weak, "pki.csr_key_size_refused"),
        (lambda name: "A" * 60_000, "pki.csr_too_large"),
        (unproven, "pki.csr_signature_invalid"),
    ],
)
def test_a_request_that_cannot_be_granted_is_refused_by_its_name(
    server: RunningServer, operator: Operator, tmp_path: Path, csr: Callable[[str], str], code: str
) -> None:
    name = f"refused-{next(_NUMBERS)}"
    holder = a_device(common_name=name, now=datetime.now(UTC), lifetime=timedelta(days=1))
    operator.enroll(name, holder, **POLICY)
    answer = register(server, files_of(tmp_path, holder, name), name, csr(name))
    assert (answer.status, answer.body["errorCode"]) == (400, 400004)
    assert server.why(answer.body["trackingId"])["code"] == code


def test_a_request_without_a_policy_is_refused(server: RunningServer, operator: Operator, tmp_path: Path) -> None:
    name = f"unasked-{next(_NUMBERS)}"
    holder = a_device(common_name=name, now=datetime.now(UTC), lifetime=timedelta(days=1))
    operator.enroll(name, holder)
    answer = register(server, files_of(tmp_path, holder, name), name, Key().csr(name))
    assert (answer.status, answer.body["errorCode"]) == (400, 400004)
    assert server.why(answer.body["trackingId"])["code"] == "dps.no_issuing_policy"


def test_a_device_that_asks_for_anothers_certificate_is_refused_and_stays(
    server: RunningServer, operator: Operator, tmp_path: Path
) -> None:
    name, _, _, issued = a_registered(server, tmp_path)
    other, _, _, of_other = a_registered(server, tmp_path)
    before = operator.thumbprints(other)
    with at_hub(server, issued, name) as device:
        device.subscribe("$iothub/credentials/res/#")
        refused, _ = issue(device, other, Key().csr(other))
        assert (refused.status, refused.body["errorCode"]) == (403, 403000)
        assert server.why(refused.body["trackingId"])["code"] == "iothub.credential_of_another"
        refused, _ = issue(device, name, Key().csr(other))
        assert (refused.status, refused.body["errorCode"]) == (400, 400040)
        assert not device.is_over
    assert operator.thumbprints(other) == before
    with at_hub(server, of_other, other):
        pass


def test_a_device_on_record_by_keys_has_no_certificate_to_renew(server: RunningServer, operator: Operator) -> None:
    name, key = f"sas-{next(_NUMBERS)}", bytes(32)
    text = base64.b64encode(key).decode()
    authentication = {"type": "sas", "symmetricKey": {"primaryKey": text, "secondaryKey": text}}
    assert operator.hub("PUT", f"/devices/{name}", {"deviceId": name, "authentication": authentication})[0] == 200
    token = make_sas(f"{server.endpoints['iothub']['host']}/devices/{name}", key, int(time.time()) + 600)
    with at_hub(server, None, name, token) as device:
        refused, _ = issue(device, name, Key().csr(name))
        assert (refused.status, refused.body["errorCode"]) == (412, 412005)
        assert not device.is_over


def test_a_device_whose_policy_was_taken_away_is_refused_at_once(
    server: RunningServer, operator: Operator, tmp_path: Path
) -> None:
    name, _, _, issued = a_registered(server, tmp_path)
    with at_hub(server, issued, name) as device:
        told = operator.dps("GET", f"/enrollments/{name}")[1]
        without = {key: value for key, value in told.items() if key not in {*POLICY, "registrationState"}}
        assert operator.dps("PUT", f"/enrollments/{name}", without)[0] == 200
        refused, _ = issue(device, name, Key().csr(name))
        assert (refused.status, refused.body["errorCode"]) == (412, 412005)


def test_what_a_device_never_used_gives_way_to_the_next_and_the_one_in_use_stays(
    server: RunningServer, operator: Operator, tmp_path: Path
) -> None:
    name, _, _, issued = a_registered(server, tmp_path)
    fresh = []
    with at_hub(server, issued, name) as device:
        for number in range(3):
            key = Key()
            _, done = issue(device, name, key.csr(name), rid=str(number))
            assert done is not None
            fresh.append(kept(tmp_path, done.body["certificates"], key))
        assert operator.thumbprints(name) == (issued.thumbprint, fresh[-1].thumbprint)
    reasons = {row["thumbprint"]: row["reason"] for row in server.rows("pki", "ls", name)}
    assert [reasons[one.thumbprint] for one in fresh] == ["superseded", "superseded", None]
    with at_hub(server, issued, name):
        pass
    with at_hub(server, fresh[-1], name):
        pass


def test_who_asks_again_with_the_same_key_gets_what_was_made_for_it(server: RunningServer, tmp_path: Path) -> None:
    name, _, _, issued = a_registered(server, tmp_path)
    key = Key()
    with at_hub(server, issued, name) as device:
        _, first = issue(device, name, key.csr(name))
    with at_hub(server, issued, name) as device:
        accepted, again = issue(device, name, key.csr(name), rid="8")
    assert accepted.status == 202
    assert first is not None
    assert again is not None
    assert again.body["certificates"] == first.body["certificates"]


def test_a_server_that_is_killed_while_it_issues_leaves_no_device_without_a_certificate(tmp_path: Path) -> None:
    with a_server(tmp_path, is_warm=False) as server:
        operator = Operator(server.cloud)
        name, _, _, issued = a_registered(server, tmp_path)
        for _ in range(4):
            key = Key()
            device = at_hub(server, issued, name)
            device.publish("$iothub/credentials/POST/issueCertificate/?$rid=1", {"id": name, "csr": key.csr(name)})
            assert device.answer().status == 202
            server.kill()
            device.client.loop_stop()
            server.start()
            with at_hub(server, issued, name) as again:  # the one in use counts, whatever became of the other
                accepted, done = issue(again, name, key.csr(name))
                assert accepted.status == 202, accepted
                assert done is not None
                assert done.status == 200, done
                fresh = kept(tmp_path, done.body["certificates"], key)
                assert operator.thumbprints(name) == (issued.thumbprint, fresh.thumbprint)
            with at_hub(server, fresh, name):
                assert operator.thumbprints(name) == (fresh.thumbprint, fresh.thumbprint)
            issued = fresh
        alive = [row for row in server.rows("pki", "ls", name) if row["serial"] and row["reason"] is None]
        assert len(alive) == 5
