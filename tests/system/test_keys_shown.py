"""Whoever is shown a key stands in the audit, wherever it was asked for: the operator interface, or a cloud's own."""

import base64
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from birthmark.auth.access_token_cloud_credentials import key_of, policy_of
from support.azure.raw_back_end import BackEndRefusedError, RawBackEnd
from support.azure.sas_tokens import make_sas
from support.console.persons import Person
from support.server.servers import RunningServer, a_new_server

pytestmark = pytest.mark.system


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with contextlib.ExitStack() as stack:
        yield stack.enter_context(a_new_server(tmp_path))


@pytest.fixture
def anna(server: RunningServer, tmp_path: Path) -> Person:
    file = tmp_path / "anna.invitation"
    server.run("user", "create", "anna", "--role", "admin", "--out", str(file))
    somebody = Person(tmp_path / "anna")
    somebody.run("login", str(file))
    return somebody


def audited(server: RunningServer, action: str) -> list[tuple[str, str]]:
    rows = [row for row in server.rows("server", "audit", "ls") if row["action"] == action]
    return [(row["actor"], row["subject"]) for row in rows]


def by_sas(server: RunningServer, anna: Person, kind: str, path: str, body: Any = None) -> Any:
    """Ask a cloud's own interface by the policy of a person's token."""
    kept = json.loads((anna.home / ".config/birthmark/login.json").read_text())
    text = server.environment["IOTHUB_CONNECTION_STRING" if kind == "hub" else "PROVISIONING_CONNECTION_STRING"]
    at = text.split("HostName=")[1].split(";")[0]
    policy = policy_of(kept["token_id"], "birthmark")
    resource = f"{at.partition(':')[0]}{path if kind == 'dps' else ''}"
    token = make_sas(resource, key_of(kept["token"]), int(time.time()) + 600, policy)
    url = f"https://{at}{path}?api-version={'2021-04-12' if kind == 'hub' else '2021-10-01'}"
    by = {"Authorization": token}
    method = "PUT" if body else "GET" if kind == "hub" else "POST"
    answer = requests.request(method, url, json=body, headers=by, verify=server.endpoints["trust_bundle"], timeout=30)
    assert answer.ok, answer.text
    return answer.json()


def test_who_was_shown_a_services_keys_stands_in_the_audit(server: RunningServer, anna: Person) -> None:
    anna.run("hub", "key", "--policy", "service")
    anna.run("dps", "key")
    server.run("hub", "key")
    shown = audited(server, "iothub.key_show")
    assert shown == [("user:anna", "birthmark"), ("operator", "birthmark")]
    assert audited(server, "dps.key_show") == [("user:anna", "birthmark")]
    (row,) = (row for row in server.rows("server", "audit", "ls") if row["action"] == "dps.key_show")
    assert row["detail"]["policy"] == "provisioningserviceowner"
    assert anna.attempt("hub", "key", "--policy", "nobody").returncode != 0
    assert audited(server, "iothub.key_show") == shown  # nothing was shown


def test_who_was_shown_a_devices_keys_stands_in_the_audit(server: RunningServer, anna: Person) -> None:
    server.run("hub", "device", "create", "pump-1")
    found = by_sas(server, anna, "hub", "/devices/pump-1")
    assert found["authentication"]["symmetricKey"]["primaryKey"]
    server.run("hub", "device", "create", "pump-2")
    listed = by_sas(server, anna, "hub", "/devices")
    assert [one["deviceId"] for one in listed] == ["pump-1", "pump-2"]
    assert audited(server, "iothub.device_key_show") == [("user:anna", "pump-1"), ("user:anna", "*")]


def test_who_was_shown_an_enrollments_keys_stands_in_the_audit(server: RunningServer, anna: Person) -> None:
    body = {"registrationId": "pump-2", "attestation": {"type": "symmetricKey"}}
    by_sas(server, anna, "dps", "/enrollments/pump-2", body)
    found = by_sas(server, anna, "dps", "/enrollments/pump-2/attestationmechanism")
    assert found["symmetricKey"]["primaryKey"]
    assert audited(server, "dps.enrollment_key_show") == [("user:anna", "pump-2")]


def test_who_was_shown_a_credential_again_stands_in_the_audit(server: RunningServer, anna: Person) -> None:
    told = ("env", "--format", "aziot", "--registration-id", "pump-3")
    server.run(*told)
    assert audited(server, "est.user.show") == []  # it was made, which is told
    anna.run(*told)
    assert audited(server, "est.user.show") == [("user:anna", "pump-3")]


def test_a_removed_user_reads_no_more_telemetry_over_amqp(server: RunningServer, anna: Person) -> None:
    kept = json.loads((anna.home / ".config/birthmark/login.json").read_text())
    known = server.endpoints["iothub"]
    policy, key = policy_of(kept["token_id"], "birthmark"), base64.b64encode(key_of(kept["token"])).decode()
    string = f"Endpoint=sb://{known['host']}/;SharedAccessKeyName={policy};SharedAccessKey={key};EntityPath=birthmark"
    with RawBackEnd(server.address, server.endpoints["trust_bundle"], string) as back_end:
        back_end.claim()
        back_end.attach("birthmark/ConsumerGroups/$Default/Partitions/0", credit=10)
        server.run("user", "rm", "anna", "--yes")
        back_end.line.settimeout(5)
        with pytest.raises(BackEndRefusedError, match="unauthorized-access"):
            back_end.next()
