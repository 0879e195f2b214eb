"""A certificate with anything in it, in a chip or on its way into one: used or refused by name, never a traceback."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from pkcs11.constants import Attribute, ObjectClass
from pkcs11.util.x509 import decode_x509_certificate
from typer.testing import CliRunner

from birthmark.cli.app import app
from birthmark.secure_elements.softhsm_element import SoftwareElement
from birthmark.secure_elements.token_object_management import certificate_label
from support.pki.odd_certificates import CHANGES, odd_certificate
from support.pki.pki_builders import a_key

pytestmark = pytest.mark.integration
KEY = a_key()
ODD = {what: odd_certificate(what, KEY) for what in CHANGES}
READERS = (("ls",), ("cert",), ("cert", "--chain"), ("refkey",), ("show",), ("csr", "--cn", "device-1"))


def is_told(element: SoftwareElement, *arguments: str) -> bool:
    """Run `birthmark chip`; an exception that nobody foresaw is raised here."""
    done = CliRunner().invoke(app, ["chip", *arguments], env=dict(element.environment), catch_exceptions=False)
    return done.exit_code == 0 or "Code: " in done.stderr


@pytest.mark.parametrize("what", ODD)
def test_in_the_chip_it_is_read_or_refused(atecc608: SoftwareElement, what: str) -> None:
    with atecc608.open() as element:
        key, good = element.key(), element.certificate()
        label = certificate_label(key)
        template = decode_x509_certificate(good.der) | {
            Attribute.TOKEN: True,
            Attribute.PRIVATE: False,
            Attribute.LABEL: label,
            Attribute.ID: key.key_id,
            Attribute.VALUE: ODD[what],
        }
        element._replace(ObjectClass.CERTIFICATE, label, template)
    for reader in READERS:
        assert is_told(atecc608, *reader), reader


@pytest.mark.parametrize("what", ODD)
def test_on_its_way_into_the_chip_it_is_written_or_refused(
    atecc608: SoftwareElement, what: str, tmp_path: Path
) -> None:
    file = tmp_path / "odd.der"
    file.write_bytes(ODD[what])
    assert is_told(atecc608, "write", str(file))
    assert is_told(atecc608, "write", str(file), "--label", "a-ca")
    assert is_told(atecc608, "ls")


@pytest.mark.parametrize("what", ODD)
def test_of_the_chip_s_own_key_it_is_written_or_refused(atecc608: SoftwareElement, what: str, tmp_path: Path) -> None:
    with atecc608.open() as element:
        public = element.key().public_key
    der = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    ours, theirs = (key.public_bytes(*der) for key in (public, KEY.public_key()))
    assert ODD[what].count(theirs) == 1
    file = tmp_path / "odd.der"
    file.write_bytes(ODD[what].replace(theirs, ours))
    assert is_told(atecc608, "write", str(file))
    for reader in READERS:
        assert is_told(atecc608, *reader), reader
