"""A root on another machine: request, answer, and all that can be wrong with them."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AttributeOID
from typer.testing import CliRunner, Result

from birthmark.ca import ca_directory, offline_root, passphrase_rotation
from birthmark.ca.hierarchy_files import alone_in
from birthmark.ca.offline_root import AnswerRefusedError, RequestRefusedError, ask, install, read_request
from birthmark.ca.passphrase_sources import Passphrase
from birthmark.cli.app import app
from birthmark.clock_and_entropy import SystemClock, SystemEntropy
from birthmark.pki.certificate_profiles import Purpose
from birthmark.pki.certificates import Certificate, parse_bundle, parse_pem
from birthmark.pki.names_and_registration_ids import name_of
from birthmark.pki.path_validation import build_chain
from support.pki.pki_builders import a_csr, a_key


def now() -> datetime:
    """Return the time; what is made here begins only a little earlier."""
    return SystemClock().now()


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["ca", *(str(one) for one in arguments)], catch_exceptions=False)


def done(*arguments: str | Path) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """Two machines: `root-ca` with the root's key, and `ca` without."""
    done("init", "--name", "Example", "--dir", tmp_path / "root-ca")
    shutil.copytree(tmp_path / "root-ca", tmp_path / "ca")
    (tmp_path / "ca" / "root.key").unlink()
    return tmp_path


def signed(places: Path, purpose: str = "edge") -> Path:
    """Ask, and have it answered."""
    done("request", "--purpose", purpose, "--dir", places / "ca", "--out", places / "one.csr")
    done("root", "sign", places / "one.csr", "--dir", places / "root-ca", "--out", places / "one.answer")
    return places / "one.answer"


def root_of(places: Path) -> Certificate:
    return parse_pem((places / "root-ca" / "root.pem").read_text())


def refusal(places: Path, data: bytes) -> str:
    with pytest.raises(RequestRefusedError) as refused:
        read_request(data, root_of(places), now())
    return str(refused.value)


def answered(places: Path, data: bytes, root: str | None = None) -> str:
    before = sorted((one.name, one.read_bytes()) for one in (places / "ca").iterdir())
    with pytest.raises(AnswerRefusedError) as refused:
        install(places / "ca", data, now(), root=root)
    assert sorted((one.name, one.read_bytes()) for one in (places / "ca").iterdir()) == before
    return str(refused.value)


@pytest.mark.parametrize("purpose", ["est", "edge", "servers"])
def test_a_ca_below_a_root_elsewhere_comes_by_request_and_answer(places: Path, purpose: str) -> None:
    done("install", signed(places, purpose), "--dir", places / "ca")
    made = ca_directory.load(places / "ca")
    below = made.issuers[Purpose(purpose)].certificate
    assert build_chain(below, [], made.anchors, now()) == (below, made.anchor)
    assert below.extensions.path_length == (1 if purpose == "edge" else 0)
    assert not made.has_root
    assert {one.suffix for one in (places / "ca").iterdir()} == {".pem", ".key", ".crl", ""}


def test_a_new_installation_may_never_have_had_a_root(tmp_path: Path) -> None:
    done("init", "--name", "Root Holder", "--flat", "--dir", tmp_path / "root-ca")
    done("init", "--name", "Plant", "--offline-root", "--dir", tmp_path / "ca", "--out", tmp_path / "issuing.csr")
    for words in (("show",), ("request", "--purpose", "servers")):
        waiting = run(*words, "--dir", tmp_path / "ca")
        assert (waiting.exit_code, "birthmark ca install" in waiting.stderr) == (3, True)
    done("root", "sign", tmp_path / "issuing.csr", "--dir", tmp_path / "root-ca", "--out", tmp_path / "answer")
    thumbprint = root_of(tmp_path).thumbprint.hex()
    assert run("install", tmp_path / "answer", "--dir", tmp_path / "ca", "--root-thumbprint", "0" * 64).exit_code == 1
    cut = run("install", tmp_path / "answer", "--dir", tmp_path / "ca", "--root-thumbprint", thumbprint[:32])
    assert (cut.exit_code, "64 hex digits" in cut.stderr) == (2, True)
    done("install", tmp_path / "answer", "--dir", tmp_path / "ca", "--root-thumbprint", thumbprint)
    shown = [json.loads(line) for line in done("show", "--dir", tmp_path / "ca", "--json").splitlines()]
    assert [row["ca"] for row in shown] == ["root", "issuing"]
    done("issue", "device-1", "--dir", tmp_path / "ca", "--out-dir", tmp_path)
    (leaf, above) = parse_bundle((tmp_path / "device-1.cert.pem").read_text())
    assert "Plant" in above.subject_text
    assert build_chain(leaf, [above], [root_of(tmp_path)], now())[-1] == root_of(tmp_path)


def test_the_first_request_of_an_installation_is_asked_anew_when_its_file_is_lost(tmp_path: Path) -> None:
    csr, answer = tmp_path / "issuing.csr", tmp_path / "answer"
    done("init", "--name", "Root Holder", "--flat", "--dir", tmp_path / "root-ca")
    (tmp_path / "no-file").mkdir()
    init = ("init", "--name", "Plant", "--offline-root", "--dir", tmp_path / "ca", "--out")
    assert run(*init, tmp_path / "no-file").exit_code != 0
    assert "birthmark ca request --purpose issuing" in run("show", "--dir", tmp_path / "ca").stderr
    done("request", "--purpose", "issuing", "--dir", tmp_path / "ca", "--out", csr)
    done("root", "sign", csr, "--dir", tmp_path / "root-ca", "--out", answer)
    done("install", answer, "--dir", tmp_path / "ca")
    assert "Plant" in ca_directory.load(tmp_path / "ca").issuing.certificate.subject_text


def test_a_first_request_that_was_killed_before_its_key_was_kept_begins_again(tmp_path: Path) -> None:
    init = ("init", "--name", "Plant", "--offline-root", "--dir", tmp_path / "ca", "--out", tmp_path / "issuing.csr")
    done(*init)
    (tmp_path / "ca" / "issuing.pending").unlink()
    done(*init)
    assert run(*init).exit_code != 0, "now it waits, and its key is not replaced unasked"


def test_what_only_the_root_can_do_says_where(places: Path) -> None:
    missing = run("issue", "web", "--cert-profile", "server", "--dir", places / "ca", "--out-dir", places)
    assert "ca.purpose_missing" in missing.stderr
    assert "birthmark ca request --purpose servers" in missing.stderr
    assert "ca.root_away" in run("crl", "--of", "root", "--dir", places / "ca").stderr
    assert "ca.root_away" in run("verify-possession", "CODE", "--dir", places / "ca").stderr


def test_a_request_for_another_root_is_refused(places: Path) -> None:
    done("init", "--name", "Other", "--dir", places / "other")
    text = ask(places / "other", Purpose.EST, now=now(), entropy=SystemEntropy())
    assert "it is for the root" in refusal(places, text.encode())


def test_a_request_is_good_for_thirty_days(places: Path) -> None:
    text = ask(places / "ca", Purpose.EST, now=now() - timedelta(days=31), entropy=SystemEntropy())
    assert "it was good until" in refusal(places, text.encode())


def test_a_request_that_is_signed_again_is_answered_by_the_same_certificate(places: Path) -> None:
    first = parse_bundle(signed(places).read_text())
    done("root", "sign", places / "one.csr", "--dir", places / "root-ca", "--out", places / "again.answer")
    assert parse_bundle((places / "again.answer").read_text()) == first


def test_a_key_that_has_another_certificate_of_the_root_is_refused(places: Path) -> None:
    key = a_key()
    for name, refused in (("CA", False), ("CB", True)):
        (places / "own.csr").write_bytes(requested(name, key, {}))
        told = run("root", "sign", places / "own.csr", "--dir", places / "root-ca", "--out", places / "own.answer")
        assert ("it was answered before" in told.stderr) is refused


def a_request(**says: object) -> bytes:
    return requested("CA", a_key(), says)


def requested(name: str, key: ec.EllipticCurvePrivateKey, says: dict[str, object]) -> bytes:
    builder = x509.CertificateSigningRequestBuilder(name_of(name))
    own = {"is": "birthmark-ca-1", "purpose": "edge", "root": "", "until": "2999-01-01T00:00:00+00:00"}
    told = own | says
    builder = builder.add_attribute(AttributeOID.UNSTRUCTURED_NAME, json.dumps(told).encode())
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"junk",
        a_csr("device-1"),
        a_request(purpose="world"),
        a_request(purpose="root"),
        a_request(until="soon"),
        a_request(until=7),
        a_request(**{"is": "something else"}),
    ],
)
def test_what_is_no_request_of_ours_is_refused(places: Path, data: bytes) -> None:
    assert refusal(places, data)


def test_an_answer_is_installed_once_and_by_whoever_asked(places: Path) -> None:
    answer = signed(places).read_bytes()
    install(places / "ca", answer, now())
    assert "does not match a pending request" in answered(places, answer)
    assert run("request", "--purpose", "edge", "--dir", places / "ca").exit_code == 1


def test_an_answer_to_an_earlier_request_is_refused(places: Path) -> None:
    answer = signed(places).read_bytes()
    ask(places / "ca", Purpose.EDGE, now=now(), entropy=SystemEntropy())
    assert "does not match a pending request" in answered(places, answer)


@contextmanager
def before_us(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> Iterator[None]:
    """Let another into the directory just before the next who wants it for itself."""
    came = []

    def alone_here(directory: Path) -> AbstractContextManager[None]:
        monkeypatch.setattr(offline_root, "alone_in", alone_in)
        came.append(act())
        return alone_in(directory)

    monkeypatch.setattr(offline_root, "alone_in", alone_here)
    yield
    assert came


def test_an_answer_is_refused_whose_request_another_replaced_a_moment_before(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = signed(places).read_bytes()
    another = places / "another.csr"
    with (
        before_us(monkeypatch, lambda: done("request", "--purpose", "edge", "--dir", places / "ca", "--out", another)),
        pytest.raises(AnswerRefusedError, match="does not match a pending request"),
    ):
        install(places / "ca", answer, now())
    done("root", "sign", another, "--dir", places / "root-ca", "--out", places / "another.answer")
    done("install", places / "another.answer", "--dir", places / "ca")
    assert Purpose.EDGE in ca_directory.load(places / "ca").issuers


def test_the_key_of_a_request_is_opened_by_a_passphrase_that_was_changed_a_moment_before(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = places / "ca"
    with before_us(monkeypatch, lambda: passphrase_rotation.move(ca, Passphrase(ca), Passphrase(ca), SystemEntropy())):
        answer = signed(places)
    done("install", answer, "--dir", ca)
    assert Purpose.EDGE in ca_directory.load(ca).issuers


def test_nothing_is_asked_for_a_ca_that_came_a_moment_before(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = signed(places)
    with before_us(monkeypatch, lambda: done("install", answer, "--dir", places / "ca")):
        assert (
            "ca.exists" in run("request", "--purpose", "edge", "--dir", places / "ca", "--out", places / "two").stderr
        )
    assert not (places / "ca" / "edge.pending").exists()


@pytest.mark.parametrize("purpose", ["est", "edge", "servers"])
def test_a_damaged_request_is_asked_again_for_its_own_purpose(places: Path, purpose: str) -> None:
    (csr := places / f"{purpose}.csr").write_text("-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n")
    told = run("root", "sign", csr, "--dir", places / "root-ca", "--json").stderr
    assert f"ca request --purpose {purpose} --dir ca --out {purpose}.csr" in told
    unnamed = csr.rename(places / "asked.csr")
    assert "--purpose" not in run("root", "sign", unnamed, "--dir", places / "root-ca", "--json").stderr


@pytest.mark.parametrize("waiting", [["edge"], ["est", "edge"], []])
def test_a_damaged_answer_is_asked_again_for_the_purpose_of_its_file(places: Path, waiting: list[str]) -> None:
    for purpose in waiting:
        done("request", "--purpose", purpose, "--dir", places / "ca", "--out", places / f"{purpose}.csr")
    (answer := places / "edge.answer").write_text("nothing")
    told = run("install", answer, "--dir", places / "ca", "--json").stderr
    assert "ca root sign edge.csr --dir root-ca --out edge.answer" in told


def test_a_ca_that_waits_names_the_purpose_that_it_asked_for(tmp_path: Path) -> None:
    (tmp_path / "edge.pending").touch()
    told = run("show", "--dir", tmp_path, "--json").stderr
    assert "ca install edge.answer" in told
    assert "issuing" not in told


def test_an_answer_of_another_root_is_refused(places: Path) -> None:
    answer = signed(places)
    leaf, _ = parse_bundle(answer.read_text())
    done("init", "--name", "Other", "--dir", places / "other")
    other = (places / "other" / "root.pem").read_text()
    assert "not signed by the root in it" in answered(places, (leaf.pem() + other).encode())
    assert "its root is" in answered(places, answer.read_bytes(), root="0" * 64)


def test_an_answer_for_another_purpose_or_time_is_refused(places: Path) -> None:
    answer = signed(places).read_bytes()
    (places / "ca" / "edge.pending").rename(places / "ca" / "est.pending")
    assert "is not that of a CA for est" in answered(places, answer)
    (places / "ca" / "est.pending").rename(places / "ca" / "edge.pending")
    with pytest.raises(AnswerRefusedError, match="expired"):
        install(places / "ca", answer, now() + timedelta(days=6 * 365))


def test_junk_is_no_answer(places: Path) -> None:
    signed(places)
    for data in (b"", b"junk", (places / "one.csr").read_bytes(), root_of(places).pem().encode()):
        assert answered(places, data)


def test_the_list_of_the_root_comes_with_the_answer(places: Path) -> None:
    install(places / "ca", signed(places).read_bytes(), now())
    listed = x509.load_der_x509_crl((places / "ca" / "root.crl").read_bytes())
    assert listed.is_signature_valid(root_of(places).public_key())  # type: ignore[arg-type]  # an EC key


def as_der(pem: bytes) -> bytes:
    return x509.load_pem_x509_crl(pem).public_bytes(Encoding.DER)


def as_utf_16(pem: bytes) -> bytes:
    return pem.decode().encode("utf-16")


@pytest.mark.parametrize("written", [bytes, as_der, as_utf_16], ids=["PEM", "DER", "UTF-16"])
def test_a_newer_list_of_the_root_is_installed_by_itself(places: Path, written: Callable[[bytes], bytes]) -> None:
    install(places / "ca", signed(places).read_bytes(), now())
    listed = places / "root.crl.pem"
    done("crl", "--of", "root", "--dir", places / "root-ca", "--out", listed)
    assert "a list as new as this one" in answered(places, listed.read_bytes())
    edge = parse_pem((places / "ca" / "edge.pem").read_text())
    done("revoke", f"{edge.serial:x}", "--dir", places / "root-ca")
    done("crl", "--of", "root", "--dir", places / "root-ca", "--out", listed)
    listed.write_bytes(written(listed.read_bytes()))
    done("install", listed, "--dir", places / "ca")
    installed = x509.load_der_x509_crl((places / "ca" / "root.crl").read_bytes())
    assert installed.get_revoked_certificate_by_serial_number(edge.serial) is not None
    done("init", "--name", "Other", "--dir", places / "other")
    done("crl", "--of", "root", "--dir", places / "other", "--out", listed)
    assert "not of the root here" in answered(places, listed.read_bytes())


@pytest.mark.parametrize("said", ["[" * 100_000, '{"is": 1}', '{"until": "0001-01-01T00:00:00+14:00"}', "x"])
def test_a_request_that_says_nonsense_is_refused(places: Path, said: str) -> None:
    whole = said
    if said.startswith('{"until"'):
        whole = json.dumps({"is": "birthmark-ca-1", "purpose": "est", "root": "", "until": json.loads(said)["until"]})
    builder = x509.CertificateSigningRequestBuilder(name_of("x"))
    request = builder.add_attribute(AttributeOID.UNSTRUCTURED_NAME, whole.encode()).sign(a_key(), hashes.SHA256())
    assert refusal(places, request.public_bytes(Encoding.PEM))
