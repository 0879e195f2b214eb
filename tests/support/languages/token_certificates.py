"""Stores a device's certificate in its token, with the ID of its key, as a manufacturer does.

A process of its own: a PKCS#11 module reads its configuration once in a process.
"""

import os
import subprocess
import sys
from pathlib import Path

import pkcs11
from pkcs11.constants import Attribute, ObjectClass
from pkcs11.util.x509 import decode_x509_certificate

from birthmark.pki.certificates import parse_bundle
from birthmark.testing.device_identity_model import ChipFiles


def store_certificate(chip: ChipFiles) -> None:
    """Store the certificate of the secure element's device."""
    command = [sys.executable, "-m", "support.languages.token_certificates", chip.certificate_file, chip.key_label]
    tests = str(Path(__file__).parents[2])
    subprocess.run(command, check=True, cwd=tests, env=os.environ | chip.environment)


def _store(certificate_file: str, key_label: str) -> None:
    module, token = os.environ["BIRTHMARK_PKCS11_MODULE"], os.environ["BIRTHMARK_TOKEN"]
    pin = Path(os.environ["BIRTHMARK_PIN_FILE"]).read_text().strip()
    (leaf,) = parse_bundle(Path(certificate_file).read_bytes())
    with pkcs11.lib(module).get_token(token_label=token).open(rw=True, user_pin=pin) as session:
        key = session.get_key(object_class=ObjectClass.PRIVATE_KEY, label=key_label)
        values = decode_x509_certificate(leaf.der) | {Attribute.ID: key.id, Attribute.LABEL: key_label}
        session.create_object(values | {Attribute.TOKEN: True})


if __name__ == "__main__":
    _store(*sys.argv[1:])
