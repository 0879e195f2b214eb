"""What an operator puts on record: policies, names, manifests, and clouds that do not take it."""

import base64
import json
import socket
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from fixes.applied import with_file
from fixes.element_scenarios import chip
from fixes.peer import Peer, Say
from fixes.scenario import Scenario, after, device, typed
from fixes.scene import Scene

from birthmark.manifests.writer import ManifestChip, ManifestKey, render_entry
from support.pki.pki_builders import a_ca, a_key

ENROLL = 'birthmark device enroll --cert "$X509_CERT_FILE"'
_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -keyout nameless.key"
MANIFEST = "birthmark device enroll-list manifest.json --signer signer.pem"


def delivered(curve: str) -> Callable[[Scene], None]:
    """A chip at hand, and its supplier's signed list, in which it has no certificate and a key on this curve."""

    def prepare(scene: Scene) -> None:
        chip(profile="atecc608")(scene)
        ca, now = a_ca("Fixes Manifest Signer", now=datetime.now(UTC)), datetime.now(UTC)
        assert isinstance(ca.private_key, ec.EllipticCurvePrivateKey)
        signer = ManifestKey(ca.certificate, ca.private_key)
        entry = render_entry(ManifestChip("0123aabbccddeeff01", [a_key().public_key()], None), signer, now)
        payload = json.loads(base64.urlsafe_b64decode(entry["payload"] + "=="))
        payload["publicKeySet"]["keys"][0]["crv"] = curve
        (scene.directory / "manifest.json").write_text(json.dumps([_signed(entry, payload, ca.private_key)]))
        (scene.directory / "signer.pem").write_text(ca.certificate.pem())

    return prepare


def _signed(entry: dict[str, Any], payload: object, key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
    body = _text(json.dumps(payload).encode())
    r, s = decode_dss_signature(key.sign(f"{entry['protected']}.{body}".encode(), ec.ECDSA(hashes.SHA256())))
    return entry | {"payload": body, "signature": _text(r.to_bytes(32) + s.to_bytes(32))}


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


OTHERS = typed(*(f"birthmark manifest create --out {name} --count 1" for name in ("shipment", "other")))

VERIFY = "birthmark manifest verify shipment/manifest.json"
SHIPMENT = "shipment/manifest.json --signer shipment/signer.pem --trust-root shipment/root.pem"
RUN = (
    "birthmark manifest create --out shipment --count 1",
    f"birthmark device enroll-list {SHIPMENT} --journal run.journal",
)
MOVE = f"birthmark device move {SHIPMENT}"
UNDO = "birthmark device enroll-list shipment/manifest.json --undo"

DENIED = (
    b'{"message": "User: arn:aws:iam::1:user/u is not authorized to perform: iot:ListThings on resource: * because no '
    b'identity-based policy allows the iot:ListThings action"}'
)


def _deny(sock: socket.socket) -> None:
    sock.recv(65536)
    head = b"HTTP/1.1 403 Forbidden\r\nx-amzn-ErrorType: AccessDeniedException\r\nConnection: close\r\n"
    sock.sendall(head + b"Content-Length: %d\r\n\r\n" % len(DENIED) + DENIED)


def _throttle(times: int) -> Say:
    """Say that it is too much, so many times: as often as the SDK itself tries."""
    left = iter(range(times))

    def say(sock: socket.socket) -> None:
        sock.recv(65536)
        is_tired = next(left, None) is not None
        body = b'{"message": "Rate exceeded"}' if is_tired else b'{"things": [], "certificates": []}'
        status = b"429 Too Many Requests\r\nx-amzn-ErrorType: ThrottlingException" if is_tired else b"200 OK"
        sock.sendall(b"HTTP/1.1 %b\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))

    return say


def at_another_aws(say: Say, port: int) -> Callable[[Scene], None]:
    """A profile `poor` whose endpoint answers so."""

    def prepare(scene: Scene) -> None:
        Peer(scene, say, port, "127.9.8.6").start()
        at = scene.directory / ".config" / "birthmark"
        at.mkdir(parents=True)
        endpoint = f'endpoint_url = "http://127.9.8.6:{port}"'
        (at / "profiles.toml").write_text(f'[poor.aws]\n{endpoint}\nregion = "eu-central-1"\n')
        scene.environment |= {"HOME": str(scene.directory), "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}

    return prepare


def at_a_hub(scene: Scene) -> None:
    """A profile `plant` with the hub of the server."""
    text = scene.directory / "hub"
    text.touch(0o600)
    assert scene.server is not None
    text.write_text(scene.server.environment["IOTHUB_CONNECTION_STRING"])
    at = scene.directory / ".config" / "birthmark"
    at.mkdir(parents=True)
    ca = scene.server.endpoints["trust_bundle"]
    (at / "profiles.toml").write_text(f'[plant.azure]\nhub_connection_string_file = "{text}"\nca_file = "{ca}"\n')
    scene.environment |= {"HOME": str(scene.directory)}


POOR = "birthmark device ls --to aws --profile poor"
FLEET: Mapping[str, Scenario] = {
    "fleet.not_at_hub": Scenario("birthmark hub device show none --profile plant", at_a_hub, is_instead=True),
    "fleet.not_allowed": Scenario(POOR, at_another_aws(_deny, 8099), is_instead=True),
    "fleet.target_throttled": Scenario(POOR, at_another_aws(_throttle(8), 8098)),
    "enroll.journal_not_named": Scenario(UNDO, typed(*RUN), is_instead=True),
    "enroll.report_form": Scenario(
        f"birthmark device enroll-list {SHIPMENT} --report run.xls", typed(RUN[0]), is_instead=True
    ),
    "fleet.not_taken_back": Scenario(
        f"{UNDO} --journal run.journal",
        typed(
            *RUN,
            f"birthmark manifest extract {SHIPMENT} --out .",
            f'openssl req -x509 -nodes {_KEY} -subj "/CN=$(basename sn*.pem .pem)" -days 9 -out other.pem',
            "birthmark device enroll --cert other.pem --update --force",
        ),
        types_all=True,
    ),
    "fleet.not_at_source": Scenario(f"{MOVE} --from azure --to aws", typed(RUN[0]), is_instead=True),
    "fleet.taken_at_destination": Scenario(
        f"{MOVE} --from aws --to azure",
        typed(
            *RUN,
            f"birthmark device enroll-list {SHIPMENT} --to aws",
            f"birthmark manifest extract {SHIPMENT} --out .",
            f'openssl req -x509 -nodes {_KEY} -subj "/CN=$(basename sn*.pem .pem)" -days 9 -out other.pem',
            "birthmark device enroll --cert other.pem --update --force",
        ),
        is_instead=True,
    ),
    "enroll.device_not_named": Scenario(
        "birthmark device enroll --to aws --cert nameless.pem",
        typed(f"openssl req -x509 -nodes {_KEY} -subj /O=Fixes -days 1 -out nameless.pem"),
        is_instead=True,
    ),
    "enroll.manifest_empty": Scenario(
        "birthmark device enroll-list empty.json", typed("echo '[]' > empty.json"), is_instead=True
    ),
    "fleet.reference_missing": Scenario(f"{ENROLL} --to aws --policy fix-policy", device("fix-reference")),
    "fleet.target_refused": Scenario(
        f"{ENROLL} --to aws 'a b'", device("fix-refused-name"), is_instead=True, leads_to="awsiot.name_invalid"
    ),
    "fleet.target_unreachable": Scenario(
        "birthmark device ls --profile cloud",
        after(
            device("fix-unreachable"),
            'export PROVISIONING_CONNECTION_STRING="HostName=127.9.8.7;${PROVISIONING_CONNECTION_STRING#*;}"',
        ),
        is_instead=True,
    ),
    "manifest.chain_broken": Scenario(
        f"{VERIFY} --signer shipment/signer.pem --trust-root other/root.pem $ROOT",
        OTHERS,
        apply=with_file("shipment/root.pem", "ROOT"),
    ),
    "manifest.no_certificate": Scenario(MANIFEST, delivered("P-256"), is_instead=True),
    "manifest.list_unsigned": Scenario(
        "birthmark manifest verify certificates",
        typed(
            RUN[0],
            f"birthmark manifest extract {SHIPMENT} --out certificates --chain",
            "cp shipment/root.pem maker-ca.pem",
        ),
        is_instead=True,
    ),
    "manifest.packed": Scenario(
        "birthmark manifest verify rehearsal/manifest.json.gz "
        "--signer rehearsal/signer.pem --trust-root rehearsal/root.pem",
        typed("birthmark manifest create --out rehearsal --count 3", "gzip rehearsal/manifest.json"),
        is_instead=True,
    ),
    "manifest.not_checked": Scenario(MANIFEST, delivered("P-384"), is_instead=True),
    "manifest.signer_unknown": Scenario(
        f"{VERIFY} --trust-root shipment/root.pem --signer other/signer.pem $SIGNER",
        OTHERS,
        apply=with_file("shipment/signer.pem", "SIGNER"),
    ),
}
