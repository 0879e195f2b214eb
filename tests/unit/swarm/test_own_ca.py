"""A CA of the user's own signs the devices' certificates."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from birthmark.device_transports.errors import CertificateKeyMismatchError
from birthmark.errors import BirthmarkError
from birthmark.pki.certificate_profiles import ISSUING_CA
from birthmark.swarm.identities import CaFactory
from birthmark.swarm.scenario.model import Identities
from support.fakes import NOON, SeededEntropy
from support.pki.pki_builders import a_ca, a_key, key_pem


def a_maker(tmp_path: Path, key: EllipticCurvePrivateKey, *certificates: str) -> CaFactory:
    cert, key_file = tmp_path / "ca.pem", tmp_path / "ca.key"
    cert.write_text("".join(certificates))
    key_file.write_text(key_pem(key))
    key_file.chmod(0o600)
    return CaFactory.of(Identities(ca_cert=cert, ca_key=key_file), SeededEntropy(), NOON)


def test_a_certificate_and_the_key_of_another_are_refused_by_the_names_of_both_files(tmp_path: Path) -> None:
    with pytest.raises(CertificateKeyMismatchError) as refused:
        a_maker(tmp_path, a_key(), a_ca().certificate.pem())
    for text in (refused.value.explain_cause(), refused.value.explain_fix()):
        assert str(tmp_path / "ca.pem") in text
        assert str(tmp_path / "ca.key") in text


def test_the_certificate_of_the_key_signs_wherever_it_stands_in_its_file(tmp_path: Path) -> None:
    root, key = a_ca(), a_key()
    below = a_ca("Below", parent=root, profile=ISSUING_CA, key=key).certificate
    maker = a_maker(tmp_path, key, root.certificate.pem(), below.pem())
    assert maker.issuer.certificate == below
    assert maker.make("device-1", NOON)[1][1:] == (below,)


def locked(tmp_path: Path, written: str | None) -> BirthmarkError:
    key = a_key()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pw"))
    for name, content in (("ca.key", pem), ("word", (written or "").encode())):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    (tmp_path / "ca.pem").write_text(a_ca(key=key).certificate.pem())
    word = None if written is None else tmp_path / "word"
    identities = Identities(ca_cert=tmp_path / "ca.pem", ca_key=tmp_path / "ca.key", passphrase_file=word)
    with pytest.raises(BirthmarkError) as refused:
        CaFactory.of(identities, SeededEntropy(), NOON)
    return refused.value


@pytest.mark.parametrize("written", [None, "another"])
def test_a_key_that_does_not_open_leads_to_the_option_that_this_command_reads(
    tmp_path: Path, written: str | None
) -> None:
    fix = locked(tmp_path, written).explain_fix()
    assert "--ca-passphrase-file" in fix
    assert "PASS_PHRASE" not in fix


def test_a_blank_at_the_end_of_the_file_of_its_passphrase_is_told(tmp_path: Path) -> None:
    refused = locked(tmp_path, "pw ")
    assert "ends with white space" in refused.explain_cause()
    assert "sed" in refused.explain_fix()
