"""TPM attestation as aziot asks for it, request by request, and the service interface of such an enrollment."""

import base64
import contextlib
import http.client
import json
import ssl
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from birthmark.dps.wire import tpm_json
from birthmark.testing.cloud import Cloud
from support.azure.credentials import Operator
from support.chips.tpms import SoftwareTpm, a_tpm

pytestmark = pytest.mark.system
VERSION = "2021-06-01"
Service = Callable[..., tuple[int, Any]]


def ask(cloud: Cloud, method: str, path: str, body: object = None, token: str = "") -> tuple[int, Any]:
    context = ssl.create_default_context(cafile=cloud.ca_file)
    connection = http.client.HTTPSConnection(cloud.host, 8443, context=context, timeout=20)
    headers = {"Content-Type": "application/json"} | ({"Authorization": token} if token else {})
    with contextlib.closing(connection):
        connection.request(method, f"{path}?api-version={VERSION}", json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")


def signed(resource: str, sign: Any, policy: str) -> str:
    where, end = quote(resource, safe=""), int(time.time()) + 3600
    signature = quote(base64.b64encode(sign(f"{where}\n{end}".encode())), safe="")
    return f"SharedAccessSignature sr={where}&sig={signature}&se={end}&skn={policy}"


@pytest.fixture
def dps(cloud: Cloud) -> Service:
    return Operator(cloud, VERSION).dps


def enroll(dps: Service, name: str, tpm: SoftwareTpm) -> tuple[int, Any]:
    keys = {"endorsementKey": tpm.keys.endorsement.base64}
    body = {"registrationId": name, "attestation": {"type": "tpm", "tpm": keys}}
    return dps("PUT", f"/enrollments/{name}", body)


def test_the_requests_of_aziot_are_answered_as_it_insists(cloud: Cloud, dps: Service) -> None:
    with a_tpm() as tpm:
        name = "aziot-tpm"
        assert enroll(dps, name, tpm)[0] == 200
        path = f"/{cloud.id_scope}/registrations/{name}"
        first = {"registrationId": name, "tpm": tpm_json(*tpm.device.public_keys())}
        status, challenge = ask(cloud, "PUT", f"{path}/register", first)
        assert (status, challenge["errorCode"], challenge["keyName"]) == (401, 401002, "registration")
        sealed = base64.b64decode(challenge["authenticationKey"])
        resource = f"{cloud.id_scope}/registrations/{name}"
        token = signed(resource, lambda data: tpm.device.sign_with(sealed, data), "registration")
        status, assigning = ask(cloud, "PUT", f"{path}/register", {"registrationId": name}, token)
        assert (status, assigning["status"]) == (202, "assigning")
        status, assigned = ask(cloud, "GET", f"{path}/operations/{assigning['operationId']}", token=token)
        assert (status, assigned["status"]) == (200, "assigned")
        tpm.device.store_key(base64.b64decode(assigned["registrationState"]["tpm"]["authenticationKey"]))
        assert ask(cloud, "PUT", f"{path}/register", {"registrationId": name})[0] == 401
        assert "authenticationKey" not in ask(cloud, "PUT", f"{path}/register", {"registrationId": name})[1]


def test_a_challenge_is_no_refusal_that_somebody_has_to_look_into(cloud: Cloud, dps: Service) -> None:
    with a_tpm() as tpm:
        enroll(dps, "quiet-tpm", tpm)
        path = f"/{cloud.id_scope}/registrations/quiet-tpm/register"
        ask(cloud, "PUT", path, {"registrationId": "quiet-tpm", "tpm": tpm_json(*tpm.device.public_keys())})
        assert cloud.refusals("quiet-tpm") == []


def test_an_enrollment_shows_its_keys_and_no_registration_shows_what_is_sealed(cloud: Cloud, dps: Service) -> None:
    with a_tpm() as tpm:
        key = tpm.keys.endorsement.base64
        assert enroll(dps, "shown-tpm", tpm)[1]["attestation"] == {"type": "tpm", "tpm": {"endorsementKey": key}}
        found = dps("POST", "/enrollments/shown-tpm/attestationmechanism")
        assert found == (200, {"type": "tpm", "tpm": {"endorsementKey": key}})
        groups = {"enrollmentGroupId": "tpms", "attestation": {"type": "tpm", "tpm": {"endorsementKey": key}}}
        assert dps("PUT", "/enrollmentGroups/tpms", groups)[0] == 400


@pytest.mark.parametrize("key", ["AAAA", "", "*", "A" * 4000])
def test_what_is_no_key_of_a_tpm_is_not_put_on_record(cloud: Cloud, dps: Service, key: str) -> None:
    body = {"registrationId": "no-tpm", "attestation": {"type": "tpm", "tpm": {"endorsementKey": key}}}
    assert dps("PUT", "/enrollments/no-tpm", body)[0] == 400
    path = f"/{cloud.id_scope}/registrations/no-tpm/register"
    told = {"registrationId": "no-tpm", "tpm": {"endorsementKey": key, "storageRootKey": key}}
    assert ask(cloud, "PUT", path, told)[0] == 400
