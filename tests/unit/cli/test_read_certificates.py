"""Which certificate of a file with several is meant: the device's, or the CA's."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from birthmark.cli.common import read_ca_certificate, read_device_certificate
from birthmark.pki.certificates import CertificateInvalidError
from pki_builders import a_ca, a_device, a_key

CA = a_ca("Plant CA")
DEVICE = a_device(CA, "pump-1", key=a_key()).certificate
OTHER = a_device(CA, "pump-2", key=a_key()).certificate
P7B = pkcs7.serialize_certificates([DEVICE.parsed, CA.certificate.parsed], Encoding.DER)


def test_a_device_and_its_ca_in_one_file_serve_for_both(tmp_path: Path) -> None:
    (file := tmp_path / "chain.p7b").write_bytes(P7B)
    assert read_device_certificate(file) == DEVICE
    assert read_ca_certificate(file) == CA.certificate


def test_two_devices_in_one_file_are_refused(tmp_path: Path) -> None:
    (file := tmp_path / "two.pem").write_text(DEVICE.pem() + OTHER.pem())
    with pytest.raises(CertificateInvalidError) as refused:
        read_device_certificate(file)
    assert "give each device its own file" in refused.value.explain_cause()
