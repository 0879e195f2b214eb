"""TPM attestation as aziot asks for it, request by request, and the service interface of such an enrollment."""

import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import ssl
import time
from typing import Any
from urllib.parse import quote

import pytest

from birthmark.dps.wire import tpm_json
from servers import RunningServer
from tpms import SoftwareTpm, a_tpm

pytestmark = pytest.mark.system


def ask(server: RunningServer, method: str, path: str, body: object = None, token: str = "") -> tuple[int, Any]:
    context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
    connection = http.client.HTTPSConnection(server.address, 8443, context=context, timeout=20)
    headers = {"Content-Type": "application/json"} | ({"Authorization": token} if token else {})
    with contextlib.closing(connection):
        connection.request(method, f"{path}?api-version=2021-06-01", json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")


def signed(resource: str, sign: Any, policy: str) -> str:
    where, end = quote(resource, safe=""), int(time.time()) + 3600
    signature = quote(base64.b64encode(sign(f"{where}\n{end}".encode())), safe="")
    return f"SharedAccessSignature sr={where}&sig={signature}&se={end}&skn={policy}"


def service(server: RunningServer) -> str:
    text = server.endpoints["dps"]["service_connection_string"]
    parts = dict(part.split("=", 1) for part in text.split(";"))
    key = base64.b64decode(parts["SharedAccessKey"])
    return signed(parts["HostName"], lambda data: hmac.digest(key, data, hashlib.sha256), parts["SharedAccessKeyName"])


def enroll(server: RunningServer, name: str, tpm: SoftwareTpm) -> tuple[int, Any]:
    keys = {"endorsementKey": tpm.keys.endorsement.base64}
    body = {"registrationId": name, "attestation": {"type": "tpm", "tpm": keys}}
    return ask(server, "PUT", f"/enrollments/{name}", body, service(server))


def test_the_requests_of_aziot_are_answered_as_it_insists(server: RunningServer) -> None:
    with a_tpm() as tpm:
        name = "aziot-tpm"
        assert enroll(server, name, tpm)[0] == 200
        path = f"/{server.endpoints['dps']['id_scope']}/registrations/{name}"
        first = {"registrationId": name, "tpm": tpm_json(*tpm.device.public_keys())}
        status, challenge = ask(server, "PUT", f"{path}/register", first)
        assert (status, challenge["errorCode"], challenge["keyName"]) == (401, 401002, "registration")
        sealed = base64.b64decode(challenge["authenticationKey"])
        resource = f"{server.endpoints['dps']['id_scope']}/registrations/{name}"
        token = signed(resource, lambda data: tpm.device.sign_with(sealed, data), "registration")
        status, assigning = ask(server, "PUT", f"{path}/register", {"registrationId": name}, token)
        assert (status, assigning["status"]) == (202, "assigning")
        status, assigned = ask(server, "GET", f"{path}/operations/{assigning['operationId']}", token=token)
        assert (status, assigned["status"]) == (200, "assigned")
        tpm.device.keep(base64.b64decode(assigned["registrationState"]["tpm"]["authenticationKey"]))
        assert ask(server, "PUT", f"{path}/register", {"registrationId": name})[0] == 401
        assert "authenticationKey" not in ask(server, "PUT", f"{path}/register", {"registrationId": name})[1]


def test_a_challenge_is_no_refusal_that_somebody_has_to_look_into(server: RunningServer) -> None:
    with a_tpm() as tpm:
        enroll(server, "quiet-tpm", tpm)
        path = f"/{server.endpoints['dps']['id_scope']}/registrations/quiet-tpm/register"
        ask(server, "PUT", path, {"registrationId": "quiet-tpm", "tpm": tpm_json(*tpm.device.public_keys())})
        assert server.attempt("why", "quiet-tpm").returncode == 3


def test_an_enrollment_shows_its_keys_and_no_registration_shows_what_is_sealed(server: RunningServer) -> None:
    with a_tpm() as tpm:
        key = tpm.keys.endorsement.base64
        assert enroll(server, "shown-tpm", tpm)[1]["attestation"] == {"type": "tpm", "tpm": {"endorsementKey": key}}
        found = ask(server, "POST", "/enrollments/shown-tpm/attestationmechanism", token=service(server))
        assert found == (200, {"type": "tpm", "tpm": {"endorsementKey": key}})
        groups = {"enrollmentGroupId": "tpms", "attestation": {"type": "tpm", "tpm": {"endorsementKey": key}}}
        assert ask(server, "PUT", "/enrollmentGroups/tpms", groups, service(server))[0] == 400


@pytest.mark.parametrize("key", ["AAAA", "", "*", "A" * 4000])
def test_what_is_no_key_of_a_tpm_is_not_put_on_record(server: RunningServer, key: str) -> None:
    body = {"registrationId": "no-tpm", "attestation": {"type": "tpm", "tpm": {"endorsementKey": key}}}
    assert ask(server, "PUT", "/enrollments/no-tpm", body, service(server))[0] == 400
    path = f"/{server.endpoints['dps']['id_scope']}/registrations/no-tpm/register"
    told = {"registrationId": "no-tpm", "tpm": {"endorsementKey": key, "storageRootKey": key}}
    assert ask(server, "PUT", path, told)[0] == 400
