"""Every CA file that the environment or the configuration names is read in each form, or refused by its name."""

import codecs
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, pkcs7, pkcs12

from birthmark.bus.nats import create_tls_context
from birthmark.device_transports.identity_and_trust import ServerTrust
from birthmark.errors import BirthmarkError
from birthmark.fleet import target_profiles
from birthmark.pki.certificates import parse_pem
from birthmark.secure_elements.exec.loopback_tls_proxy import ProxyUpstream
from birthmark.server.message_server_files import cas_of
from support.pki.pki_builders import a_ca, a_key

ROOT = a_ca("Plant Root").certificate
PEM = ROOT.pem()
READ = {
    "PEM": PEM.encode(),
    "PEM with a mark": codecs.BOM_UTF8 + PEM.encode(),
    "UTF-16": PEM.encode("utf-16"),
    "lone CR": PEM.replace("\n", "\r").encode(),
    "DER": ROOT.der,
    "P7B": pkcs7.serialize_certificates([ROOT.parsed], Encoding.DER),
    "P7B in PEM": pkcs7.serialize_certificates([ROOT.parsed], Encoding.PEM),
}
REFUSED = {
    "PFX": pkcs12.serialize_key_and_certificates(None, a_key(), None, [ROOT.parsed], NoEncryption()),
    "cut": PEM[:200].encode(),
    "nothing": b"",
}


def _of_profile(path: Path) -> str:
    return (target_profiles._ca_file("plant", {"ca_file": str(path)}) or path).read_text()


def _of_bus(path: Path) -> str:
    context = create_tls_context(str(path), None, None)
    assert context is not None
    (loaded,) = context.get_ca_certs(binary_form=True)
    assert loaded == ROOT.der
    return PEM


PLACES: dict[str, Callable[[Path], str | None]] = {
    "SSL_CERT_FILE": lambda path: ServerTrust.default({"SSL_CERT_FILE": str(path)}).pem,
    "--ca-file": lambda path: ServerTrust.of([path]).pem,
    "ca_file of a profile": _of_profile,
    "outbound.ca and servers.NAME.ca": lambda path: cas_of("outbound.ca", str(path)),
    "bus_tls.ca": _of_bus,
    "--cacert of a program": lambda path: ProxyUpstream("", "", {}, str(path), ()).roots(),
}


@pytest.mark.parametrize("form", READ)
@pytest.mark.parametrize("place", PLACES)
def test_a_ca_file_is_read_in_each_form(tmp_path: Path, place: str, form: str) -> None:
    (file := tmp_path / "root.cer").write_bytes(READ[form])
    assert parse_pem(PLACES[place](file) or "") == ROOT


@pytest.mark.parametrize("form", REFUSED)
@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_ca_file_is_refused_in_our_words(tmp_path: Path, place: str, form: str) -> None:
    (file := tmp_path / "root.cer").write_bytes(REFUSED[form])
    with pytest.raises(BirthmarkError) as refused:
        PLACES[place](file)
    assert "ssl.c" not in refused.value.explain_cause()
