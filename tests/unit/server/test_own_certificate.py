"""A server certificate of one's own is for the host by which clients reach the server."""

from pathlib import Path

import pytest
from cryptography import x509

from birthmark.pki.profiles import SERVER
from birthmark.server.certificate import FreshContext
from birthmark.server.own_certificate import OwnCertificate, OwnCertificateError
from fakes import NOON, FakeClock
from pki_builders import a_ca, a_device

LOG = "birthmark.server.certificate"


def own(directory: Path, name: str, host: str) -> OwnCertificate:
    made = a_device(a_ca(), "own", profile=SERVER, san=(x509.DNSName(name),))
    (directory / "own.key").write_text(made.key_pem)
    (directory / "own.pem").write_text(made.certificate.pem())
    return OwnCertificate(directory / "own.pem", directory / "own.key", FakeClock(NOON), host)


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
    (record,) = [one for one in caplog.records if one.message == "server.certificate_not_renewed"]
    assert "hub.example" in str(vars(record)["reason"])
