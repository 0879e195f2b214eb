"""What the doctor says of files that Birthmark reads, and other programs do not."""

import base64
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from birthmark.doctor.facts import IdentityFacts
from birthmark.doctor.identity import inspect_identity
from birthmark.doctor.setting_sources import SettingSource, SourcedSetting
from support.fakes import NOON
from support.pki.pki_builders import a_device, key_pem

DEVICE = a_device()
PEM, KEY = DEVICE.certificate.pem().encode(), key_pem(DEVICE.private_key).encode()
FORMS: dict[str, Callable[[bytes], bytes]] = {
    "UTF-16": lambda pem: pem.decode().encode("utf-16"),
    "a mark": lambda pem: pem.decode().encode("utf-8-sig"),
    "CR": lambda pem: pem.replace(b"\n", b"\r"),
    "base64": base64.b64encode,
}
P7B = pkcs7.serialize_certificates([DEVICE.certificate.parsed], Encoding.PEM)


def seen(directory: Path, certificate: bytes, key: bytes) -> IdentityFacts:
    settings = {}
    for name, content in {"X509_CERT_FILE": certificate, "X509_KEY_FILE": key}.items():
        (path := directory / name).touch(0o600)
        path.write_bytes(content)
        settings[name] = SourcedSetting(SettingSource.VARIABLE, name, str(path))
    found = inspect_identity(settings, {}, None, NOON)
    assert found is not None
    return found


@pytest.mark.parametrize("pair", [(PEM, KEY), (b"# text\n" + PEM.replace(b"\n", b"\r\n"), KEY)])
def test_files_that_programs_read_are_no_fault(tmp_path: Path, pair: tuple[bytes, bytes]) -> None:
    found = seen(tmp_path, *pair)
    assert (found.certificate_code, found.key_code) == ("", "")


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_certificate_and_a_key_in_another_form_than_pem_are_faults(
    tmp_path: Path, form: Callable[[bytes], bytes]
) -> None:
    found = seen(tmp_path, form(PEM), form(KEY))
    assert (found.certificate_code, found.key_code) == ("pki.certificate_invalid", "keys.file_invalid")


def test_pkcs7_is_a_fault_where_programs_read_the_file(tmp_path: Path) -> None:
    assert seen(tmp_path, P7B, KEY).certificate_code == "pki.certificate_invalid"
