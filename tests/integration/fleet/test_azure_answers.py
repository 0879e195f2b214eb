"""What a service answers over the wire, through Microsoft's client: it never holds a thread, and nonsense is named."""

import datetime as dt
import http.server
import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from birthmark.clock_and_entropy import SystemClock
from birthmark.fleet.azure_hub_devices import HubDevices
from birthmark.fleet.azure_target import AzureTarget
from birthmark.fleet.errors import (
    RecordUnreadableError,
    TargetAnswerError,
    TargetRefusedError,
    TargetThrottledError,
    TargetUnreachableError,
)
from birthmark.fleet.target_profiles import AzureProfile
from support.pki.pki_builders import a_key, key_pem

HOST = "127.0.0.1"


class Service(http.server.ThreadingHTTPServer):
    """Answers everything the same way."""

    status = 200
    headers: tuple[tuple[str, str], ...] = ()
    body = b"{}"


class Answering(http.server.BaseHTTPRequestHandler):
    """One connection to it."""

    protocol_version = "HTTP/1.1"
    server: Service

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(self.server.status)
        for name, value in (*self.server.headers, ("content-type", "application/json")):
            self.send_header(name, value)
        self.send_header("content-length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    do_GET = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815 - the library's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as above
        """Say nothing."""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    key, name, now = a_key(), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)]), dt.datetime.now(dt.UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(7).not_valid_before(now - dt.timedelta(1)).not_valid_after(now + dt.timedelta(1))
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))])
    certificate = made.add_extension(address, critical=False).sign(key, hashes.SHA256())
    pem = certificate.public_bytes(encoding=Encoding.PEM)
    (tmp_path / "ca.pem").write_bytes(pem)
    (tmp_path / "own.pem").write_text(pem.decode() + key_pem(key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "own.pem")
    server = Service((HOST, 0), Answering)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def target(service: Service, tmp_path: Path) -> AzureTarget:
    string = f"HostName={HOST}:{service.server_address[1]};SharedAccessKeyName=owner;SharedAccessKey=a2V5"
    return AzureTarget(AzureProfile(string, tmp_path / "ca.pem"))


def test_a_wait_that_the_service_asks_for_is_told_and_not_slept_in_the_sdk(
    target: AzureTarget, service: Service
) -> None:
    service.status, service.headers, service.body = 429, (("retry-after", "100000"),), b'{"message": "slowly"}'
    told: list[object] = []

    def ask() -> None:
        try:
            target.remove("device-1", is_group=False)
        except TargetThrottledError as error:
            told.append(error.retry_after_s)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(10)
    assert told == [100_000]


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("said", [[], "text", 5, None, {"etag": []}])
def test_an_answer_of_another_kind_is_no_answer(
    target: AzureTarget, service: Service, status: int, said: object
) -> None:
    service.status, service.body = status, json.dumps(said).encode()
    try:
        target._found(target._sdk.get_individual_enrollment, "device-1")
        list(target.records())
    except TargetUnreachableError as error:
        assert "is not valid" in error.explain_cause()
    except TargetRefusedError as error:
        assert status == 400, error


ODD = {"registrationId": "odd", "lastUpdatedDateTimeUtc": "yesterday"}


def test_a_record_that_cannot_be_read_is_a_row_with_its_name(target: AzureTarget, service: Service) -> None:
    service.body = json.dumps([ODD, {"registrationId": "even", "provisioningStatus": "enabled"}]).encode()
    pages = target._pages(
        target._sdk.create_individual_enrollment_query(target._models.QuerySpecification(query="q"), 10)
    )
    read, (odd, even) = target._found, next(pages)
    assert (odd.name, even.registration_id) == ("odd", "even")
    service.body = json.dumps(ODD).encode()
    with pytest.raises(RecordUnreadableError) as refused:
        read(target._sdk.get_individual_enrollment, "odd")
    assert "enrollment odd" in refused.value.explain_cause()


def test_an_answer_is_never_told_as_none(target: AzureTarget, service: Service) -> None:
    service.body = b"<html><title>Blocked</title></html>"
    with pytest.raises(TargetAnswerError) as refused:
        target._found(target._sdk.get_individual_enrollment, "device-1")
    assert "does not answer" not in str(refused.value) + refused.value.explain_cause()


@pytest.fixture
def hub(service: Service, tmp_path: Path) -> HubDevices:
    string = f"HostName={HOST}:{service.server_address[1]};SharedAccessKeyName=iothubowner;SharedAccessKey=a2V5"
    return HubDevices(string, tmp_path / "ca.pem", SystemClock())


@pytest.mark.parametrize("said", [b"5", b'"text"', b"[]", b"no JSON", b""])
def test_a_hub_that_answers_otherwise_has_not_answered(service: Service, hub: HubDevices, said: bytes) -> None:
    service.body = said
    with pytest.raises(TargetUnreachableError) as refused:
        hub.get("device-1")
    assert "is not valid" in refused.value.explain_cause()


@pytest.mark.parametrize(("after", "seconds"), [("7", 7), ("soon", 0), ("", 0)])
def test_a_hub_says_how_long_it_wants_to_be_left(service: Service, hub: HubDevices, after: str, seconds: int) -> None:
    service.status, service.headers, service.body = 429, (("retry-after", after),), b"slowly"
    with pytest.raises(TargetThrottledError) as refused:
        hub.get("device-1")
    assert (refused.value.retry_after_s, refused.value.facts["reason"]) == (seconds, "slowly")


def test_a_hub_that_is_not_there_is_unreachable(hub: HubDevices, service: Service) -> None:
    service.shutdown()
    service.server_close()
    with pytest.raises(TargetUnreachableError) as refused:
        hub.get("device-1")
    assert f"IoT Hub {HOST}" in refused.value.explain_cause()


def test_what_a_hub_refuses_is_told_in_its_own_words_and_not_without_end(service: Service, hub: HubDevices) -> None:
    service.status, service.body = 400, b"a wish too many" * 100
    with pytest.raises(TargetRefusedError) as refused:
        hub.get("device-1")
    assert refused.value.facts["reason"] == ("a wish too many" * 100)[:500]
