"""A server certificate of one's own is for the host by which clients reach the server."""

import hashlib
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, pkcs7, pkcs12

from birthmark.pki.certificate_profiles import SERVER
from birthmark.server.custom_certificate import OwnCertificate, OwnCertificateError
from birthmark.server.server_certificate_renewal import FreshContext
from support.fakes import NOON, FakeClock
from support.pki.pki_builders import a_ca, a_device

LOG = "birthmark.server.server_certificate_renewal"


def own(
    directory: Path, name: str, host: str, clock: FakeClock | None = None, made_at: datetime = NOON
) -> OwnCertificate:
    made = a_device(a_ca(), "own", profile=SERVER, san=(x509.DNSName(name),), now=made_at)
    for file, content in (("own.key", made.key_pem), ("own.pem", made.certificate.pem())):
        (directory / "new").write_text(content)
        (directory / "new").replace(directory / file)  # another file, as clocks of disks are coarse
    return OwnCertificate(directory / "own.pem", directory / "own.key", clock or FakeClock(NOON), host)


def refusals(caplog: pytest.LogCaptureFixture) -> Sequence[logging.LogRecord]:
    return [one for one in caplog.records if one.message == "server.certificate_not_renewed"]


@pytest.mark.parametrize("name", ["hub.example", "*.example"])
def test_a_certificate_that_has_the_host_is_taken(tmp_path: Path, name: str) -> None:
    chain, _key = own(tmp_path, name, "hub.example").load()
    assert len(chain) == 1


def test_a_certificate_without_the_host_is_refused_and_both_are_named(tmp_path: Path) -> None:
    with pytest.raises(OwnCertificateError) as refused:
        own(tmp_path, "old.example", "hub.example").load()
    told = refused.value.explain_cause()
    assert "it is not for the server's host hub.example: it has old.example" in told
    assert "hub.example" in refused.value.explain_fix()


def test_after_a_change_to_one_without_the_host_the_old_one_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pair = own(tmp_path, "hub.example", "hub.example")
    context = FreshContext(pair.load)
    before = context()
    own(tmp_path, "old.example", "hub.example")
    context.refresh()
    assert context() is before
    (record,) = refusals(caplog)
    assert "hub.example" in str(vars(record)["reason"])


def test_one_that_is_not_valid_yet_is_taken_over_when_it_is(tmp_path: Path) -> None:
    clock = FakeClock(NOON)
    pair = own(tmp_path, "hub.example", "hub.example", clock)
    context = FreshContext(pair.load, stamp=pair.stamp)
    before = context()
    own(tmp_path, "hub.example", "hub.example", made_at=NOON + timedelta(minutes=6))
    context.refresh_if_changed()
    assert context() is before
    clock.move(timedelta(minutes=2))
    context.refresh_if_changed()
    assert context() is not before


def test_a_failure_that_repeats_itself_is_told_once_until_something_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pair = own(tmp_path, "hub.example", "hub.example")
    context = FreshContext(pair.load, stamp=pair.stamp)
    own(tmp_path, "old.example", "hub.example")
    for _ in range(3):
        context.refresh_if_changed()
    assert len(refusals(caplog)) == 1
    own(tmp_path, "other.example", "hub.example")
    context.refresh_if_changed()
    assert len(refusals(caplog)) == 2


@pytest.mark.parametrize("file", ["own.pem", "own.key"])
def test_pkcs12_in_the_place_of_either_file_is_told_with_what_unpacks_it(tmp_path: Path, file: str) -> None:
    pair, made = own(tmp_path, "hub.example", "hub.example"), a_device()
    pfx = pkcs12.serialize_key_and_certificates(None, made.private_key, made.certificate.parsed, None, NoEncryption())
    (tmp_path / file).write_bytes(pfx)
    with pytest.raises(OwnCertificateError) as refused:
        pair.load()
    assert f"openssl pkcs12 -in {tmp_path / file} -nocerts" in refused.value.explain_fix()


OTHER = a_device(a_ca(), "other", profile=SERVER)
FOREIGN_FORMS = {
    "own.key": OTHER.key_pem.encode("utf-16"),
    "own.pem": pkcs7.serialize_certificates([OTHER.certificate.parsed], Encoding.DER),
}


@pytest.mark.parametrize("file", FOREIGN_FORMS)
def test_no_command_of_openssls_is_printed_for_a_file_that_it_cannot_read(tmp_path: Path, file: str) -> None:
    pair = own(tmp_path, "hub.example", "hub.example")
    (tmp_path / file).write_bytes(FOREIGN_FORMS[file])
    with pytest.raises(OwnCertificateError) as refused:
        pair.load()
    assert hashlib.sha256(OTHER.certificate.spki_der).hexdigest() in refused.value.explain_cause()
    assert "openssl" not in refused.value.explain_fix()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_a_pair_that_windows_wrote_is_taken(tmp_path: Path, encoding: str) -> None:
    pair = own(tmp_path, "hub.example", "hub.example")
    for file in (tmp_path / "own.pem", tmp_path / "own.key"):
        file.write_text(file.read_text(), encoding=encoding)
    assert len(pair.load()[0]) == 1
