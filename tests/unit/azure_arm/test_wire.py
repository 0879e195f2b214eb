import base64
import json
from datetime import UTC, datetime

import pytest

from birthmark.azure_arm import wire
from birthmark.azure_arm.wire import ApiVersionError, BodyInvalidError
from birthmark.pki.certificates import CertificateInvalidError
from birthmark.pki.registered_ca_certificate import NOTHING
from support.pki.pki_builders import a_ca

CA = a_ca("Wire", now=datetime(2026, 1, 1, tzinfo=UTC)).certificate


def body(certificate: object, **more: object) -> bytes:
    return json.dumps({"properties": {"certificate": certificate, **more}}).encode()


@pytest.mark.parametrize(
    "text",
    [
        CA.pem(),
        base64.b64encode(CA.der).decode(),
        base64.b64encode(CA.pem().encode()).decode(),
        base64.encodebytes(CA.der).decode(),
        base64.b64encode(base64.b64encode(CA.der)).decode(),
    ],
)
def test_a_certificate_comes_as_the_sdks_send_it(text: str) -> None:
    assert wire.parse_certificate(body(text)) == (CA, None)


def test_what_a_resource_says_of_itself_is_read_over() -> None:
    given = json.loads(body(CA.pem(), isVerified=True, thumbprint="AB", created=None))
    found = wire.parse_certificate(json.dumps(given | {"id": "/x", "etag": "e", "systemData": {}}).encode())
    assert found == (CA, True)


@pytest.mark.parametrize(
    "given",
    [b"", b"[]", b"{}", b'{"properties": {}}', body(7), body(CA.pem(), tags="x"), body(CA.pem(), isVerified="no")],
)
def test_a_body_that_says_something_else_is_refused(given: bytes) -> None:
    with pytest.raises(BodyInvalidError):
        wire.parse_certificate(given)


@pytest.mark.parametrize("text", ["", "not base64!", "AAAA", base64.b64encode(b"no certificate").decode()])
def test_a_text_that_is_no_certificate_is_refused(text: str) -> None:
    with pytest.raises(CertificateInvalidError):
        wire.parse_proof(json.dumps({"certificate": text}).encode())


@pytest.mark.parametrize("text", [None, "", "latest", "2022-12", "2022-12-12-preview2", "2022-12-12\n"])
def test_a_version_is_a_day(text: str | None) -> None:
    with pytest.raises(ApiVersionError):
        wire.check_version(text)
    wire.check_version("2022-12-12")
    wire.check_version("2027-01-01-preview")


def test_an_etag_is_one_with_quotes_and_without() -> None:
    assert wire.etag_of('"AAE="', None) == wire.etag_of("AAE=", None) == wire.etag_of('W/"AAE="', None) == "AAE="
    assert wire.etag_of(None, None) is None
    assert wire.etag_of("*", None) == "*"
    assert wire.etag_of(None, "*") == NOTHING
    for pair in ((None, '"AAE="'), ("*", "*")):
        with pytest.raises(BodyInvalidError):
            wire.etag_of(*pair)


@pytest.mark.parametrize("etag", [None, NOTHING])
def test_what_takes_an_etag_is_not_done_without(etag: str | None) -> None:
    with pytest.raises(BodyInvalidError):
        wire.needed(etag)
