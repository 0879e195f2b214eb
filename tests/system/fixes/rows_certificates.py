"""Certificates as Azure issues them: requests that are not granted, and what puts them right."""

import base64
import json
import time
from collections.abc import Mapping

from fixes.desk import Desk, RefusedError, Row, a_connect, a_publish, steps, typing
from fixes.rows_azure import Act, device, in_hub, put, register, rest

from birthmark.ca.cloud_device_issuance import BURST
from support.azure.credentials import Key
from support.azure.sas_tokens import make_sas

ISSUING = 'birthmark device enroll --cert "$X509_CERT_FILE" --issue device'


def asking(name: str, *, asked: str = "", common_name: str = "", token: str = "") -> Act:
    """Ask the hub for a certificate; a refusal is an answer."""

    def act(desk: Desk) -> None:
        host = desk.scene.environment["PROVISIONING_HOST"]
        with desk.tls(8883) as sock:
            sock.settimeout(10)
            sock.sendall(a_connect(name, f"{host}/{name}/?api-version=2025-08-01-preview", password=token))
            sock.recv(4)
            body = {"id": asked or name, "csr": Key().csr(common_name or name)}
            topic = "$iothub/credentials/POST/issueCertificate/?$rid=1"
            sock.sendall(a_publish(topic, json.dumps(body).encode()))
            heard = b""
            while b"trackingId" not in heard and (data := sock.recv(65536)):
                heard += data
        if b"trackingId" in heard:
            raise RefusedError(heard[-500:])

    return act


def asking_by_key(name: str) -> Act:
    """Ask for one as a device that is on record by a key."""

    def act(desk: Desk) -> None:
        key = {"primaryKey": base64.b64encode(bytes(32)).decode(), "secondaryKey": base64.b64encode(bytes(32)).decode()}
        body = {"deviceId": name, "authentication": {"type": "sas", "symmetricKey": key}}
        rest("IOTHUB", "PUT", f"/devices/{name}", body)(desk)
        host = desk.scene.environment["PROVISIONING_HOST"]
        asking(name, token=make_sas(f"{host}/devices/{name}", bytes(32), int(time.time()) + 600))(desk)

    return act


def registering(name: str, common_name: str = "") -> Act:
    """Register with a request."""

    def act(desk: Desk) -> None:
        body = {"registrationId": name, "csr": Key().csr(common_name or name)}
        register(name, body=body)(desk)

    return act


def registering_often(name: str) -> Act:
    """Register by one key after the other."""

    def act(desk: Desk) -> None:
        for _ in range(BURST + 2):
            registering(name)(desk)

    return act


def issuing(name: str) -> Act:
    """Have a device registered that gets certificates."""
    return steps(device(name), typing(ISSUING, "birthmark device register"))


CERTIFICATES: Mapping[str, Row] = {
    "dps.no_issuing_policy": Row(
        registering("fix-unissued"), steps(device("fix-unissued"), typing(ISSUING.partition(" --issue")[0]))
    ),
    "dps.csr_name": Row(
        registering("fix-csr-name", "another"), steps(device("fix-csr-name"), typing(ISSUING)), is_instead=True
    ),
    "ca.issuing_throttled": Row(
        registering_often("fix-issued-often"), steps(device("fix-issued-often"), typing(ISSUING)), is_instead=True
    ),
    "ca.issuing_policy_unknown": Row(
        put("fix-policy", credentialPolicyName="nothing"), device("fix-policy"), is_instead=True
    ),
    "iothub.credential_of_another": Row(
        asking("fix-credential", asked="another"), issuing("fix-credential"), is_instead=True
    ),
    "iothub.credential_name": Row(
        asking("fix-credential-name", common_name="another"), issuing("fix-credential-name"), is_instead=True
    ),
    "iothub.no_credential_policy": Row(asking("fix-credential-none"), in_hub("fix-credential-none"), is_instead=True),
    "iothub.credential_of_keys": Row(asking_by_key("fix-credential-keys"), is_instead=True),
}
