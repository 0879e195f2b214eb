"""Which certificate of a file with several is meant: the device's, or the CA's."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from birthmark.cli.aws_provisioning import renew
from birthmark.cli.dps import proof_of
from birthmark.cli.input_files import read_ca_certificate, read_device_certificate, read_single_certificate
from birthmark.cli.options.server import ServerOutputOptions
from birthmark.pki.certificates import CertificateInvalidError
from support.pki.pki_builders import a_ca, a_device, a_key

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
    assert "use one file for each" in refused.value.explain_cause()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["root first", "leaf first"])
def test_of_a_chain_the_device_is_meant_in_whatever_order_it_stands(tmp_path: Path, order: tuple[int, int]) -> None:
    (file := tmp_path / "chain.pem").write_text("".join((CA.certificate.pem(), DEVICE.pem())[one] for one in order))
    assert read_single_certificate(file) == DEVICE
    assert proof_of("ca", file, False, "dps") == DEVICE.pem()


def test_a_ca_is_meant_where_its_file_has_no_other_certificate(tmp_path: Path) -> None:
    (file := tmp_path / "ca.pem").write_text(CA.certificate.pem())
    assert read_single_certificate(file) == CA.certificate
    file.write_text(CA.certificate.pem() + a_ca("Other CA").certificate.pem())
    with pytest.raises(CertificateInvalidError) as refused:
        read_single_certificate(file)
    assert "of several CAs" in refused.value.explain_cause()


def test_the_certificate_of_a_ca_renews_no_devices(tmp_path: Path) -> None:
    (file := tmp_path / "chain.pem").write_text(CA.certificate.pem())
    with pytest.raises(CertificateInvalidError) as refused:
        renew(ServerOutputOptions(), "0" * 64, file)
    assert "contains a CA certificate" in refused.value.explain_cause()


def test_of_two_cas_none_is_taken_whatever_the_form_of_the_file(tmp_path: Path) -> None:
    cas = (CA.certificate, a_ca("Other CA").certificate)
    forms = (
        "".join(one.pem() for one in cas).encode(),
        pkcs7.serialize_certificates([one.parsed for one in cas], Encoding.DER),
    )
    for form in forms:
        (file := tmp_path / "cas").write_bytes(form)
        with pytest.raises(CertificateInvalidError) as refused:
            read_ca_certificate(file)
        assert "several CAs" in refused.value.explain_cause()
        assert "a separate file" in refused.value.explain_fix()


def test_of_a_chain_it_is_said_which_ca_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file := tmp_path / "chain.pem").write_text(DEVICE.pem() + CA.certificate.pem())
    assert read_ca_certificate(file) == CA.certificate
    assert f"has 2 certificates. Used: {CA.certificate.subject_text}" in capsys.readouterr().err


def test_two_devices_that_signed_their_own_certificates_as_cas_are_refused(tmp_path: Path) -> None:
    (file := tmp_path / "two.pem").write_text("".join(a_ca(f"sensor-{n}").certificate.pem() for n in (1, 2)))
    with pytest.raises(CertificateInvalidError) as refused:
        read_device_certificate(file)
    assert "several devices" in refused.value.explain_cause()


def test_of_a_chain_of_cas_the_lowest_is_meant_in_whatever_order_it_stands(tmp_path: Path) -> None:
    below = a_ca("Line CA", parent=CA).certificate
    for order in ((CA.certificate, below), (below, CA.certificate)):
        (file := tmp_path / "chain.pem").write_text("".join(one.pem() for one in order))
        assert read_ca_certificate(file) == below
