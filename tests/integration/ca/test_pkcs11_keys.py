"""CA keys in a real PKCS#11 token: made there, never read, and back after the token was away."""

import asyncio
import base64
import os
import shutil
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from birthmark.awsiot.model import CertificateStatus
from birthmark.awsiot.service import AwsIot
from birthmark.ca import ca_directory
from birthmark.ca.hierarchy import Hierarchy
from birthmark.ca.hierarchy_files import BELOW
from birthmark.ca.ocsp_responder import OcspResponder
from birthmark.ca.offline_root import ask, install, read_request
from birthmark.ca.passphrase_rotation import move
from birthmark.ca.passphrase_sources import Passphrase
from birthmark.ca.pkcs11_keys import TokenAwayError, TokenPlace, place_of
from birthmark.ca.root_generation_directories import Generations
from birthmark.ca.root_rollover import Rollovers
from birthmark.ca.service import CertificateAuthority
from birthmark.keys.pin import Pin
from birthmark.keys.pkcs11_library_lifecycle import LOCK, stop_library
from birthmark.keys.pkcs11_token import Pkcs11Token
from birthmark.pki.certificate_profiles import EST_IDENTITY, Purpose
from birthmark.pki.csr import parse_csr
from birthmark.pki.issuance import issue, new_serial
from birthmark.pki.ocsp import OcspResponse
from birthmark.pki.path_validation import build_chain
from birthmark.secure_elements.element_session import Element
from birthmark.secure_elements.softhsm_element import initialize_token
from birthmark.store import open_database
from support.aws.account import ACCOUNT
from support.fakes import NOON, FakeClock, SeededEntropy
from support.pki.ca_world import OPERATOR
from support.pki.ocsp_requests import a_request
from support.pki.pki_builders import a_csr

pytestmark = pytest.mark.integration


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenPlace]:
    monkeypatch.setenv("SOFTHSM2_CONF", "")
    module = initialize_token(tmp_path / "chip", "CA", "123456")
    pin = tmp_path / "pin"
    pin.write_text("123456\n")
    pin.chmod(0o600)
    yield TokenPlace.of("CA", pin, module)
    stop_library()
    os.environ.pop("SOFTHSM2_CONF", None)


def made(path: Path, place: TokenPlace) -> Hierarchy:
    return ca_directory.create(path / "ca", "Test", now=NOON, entropy=SeededEntropy(), token=place)


def taken_away(path: Path) -> None:
    (path / "chip" / "tokens").rename(path / "chip" / "away")
    (path / "chip" / "tokens").mkdir()
    stop_library()


def brought_back(path: Path) -> None:
    shutil.rmtree(path / "chip" / "tokens")
    (path / "chip" / "away").rename(path / "chip" / "tokens")


async def test_everything_is_signed_in_the_token(tmp_path: Path, place: TokenPlace) -> None:
    made(tmp_path, place)
    database = await open_database(f"sqlite:///{tmp_path}/x.db", FakeClock())
    ca = CertificateAuthority(ca_directory.load(tmp_path / "ca"), database, FakeClock(), SeededEntropy(3))
    leaf, *above = await ca.issue(parse_csr(a_csr()), OPERATOR)
    assert build_chain(leaf, above, ca.hierarchy.anchors, NOON) == (leaf, *above)
    identity, *_ = await ca.issue(parse_csr(a_csr("est-1")), OPERATOR, EST_IDENTITY)
    issuer = ca.hierarchy.issuers[Purpose.EST].certificate
    for one in (ca.hierarchy.root, ca.hierarchy.issuing):
        key = one.certificate.public_key()
        assert x509.load_der_x509_crl(await ca.crl(one)).is_signature_valid(key)  # type: ignore[arg-type]  # an EC key
    answer = await OcspResponder(ca, lambda _: True).answer(a_request(identity, issuer), "192.0.2.1")
    assert isinstance(answer, OcspResponse)
    await database.close()


def test_keys_are_sensitive_not_extractable_and_only_sign(tmp_path: Path, place: TokenPlace) -> None:
    hierarchy = made(tmp_path, place)
    hierarchy.issuer(Purpose.EDGE, now=NOON, entropy=SeededEntropy(9))
    with Element(Pkcs11Token.open(place.module, label="CA", pin=Pin("123456"))) as element:
        private = [one for one in element.objects() if one.kind == "private key"]
    assert len(private) == 3
    assert all(one.is_guarded for one in private)
    for name in ("root.key", "issuing.key", "edge.key"):
        text = (tmp_path / "ca" / name).read_text()
        assert "PKCS#11 PROVIDER URI" in text
        assert "PRIVATE KEY" not in text.replace("PKCS#11 PROVIDER URI", "")
        assert "123456" not in text


async def test_a_token_that_is_away_is_told_and_found_again(tmp_path: Path, place: TokenPlace) -> None:
    made(tmp_path, place)
    taken_away(tmp_path)
    database = await open_database(f"sqlite:///{tmp_path}/x.db", FakeClock())
    ca = CertificateAuthority(ca_directory.load(tmp_path / "ca"), database, FakeClock(), SeededEntropy(3))
    with pytest.raises(TokenAwayError) as refused:
        await ca.issue(parse_csr(a_csr()), OPERATOR)
    assert "in the token 'CA' cannot sign" in refused.value.explain_cause()
    assert "123456" not in refused.value.explain_cause()
    brought_back(tmp_path)
    assert await ca.issue(parse_csr(a_csr()), OPERATOR)
    taken_away(tmp_path)  # while it is open
    with pytest.raises(TokenAwayError):
        await ca.issue(parse_csr(a_csr("device-2")), OPERATOR)
    brought_back(tmp_path)
    assert await ca.issue(parse_csr(a_csr("device-2")), OPERATOR)
    await database.close()


def test_another_key_under_the_same_name_is_not_used(tmp_path: Path, place: TokenPlace) -> None:
    made(tmp_path, place)
    other = ca_directory.create(tmp_path / "other", "Other", now=NOON, entropy=SeededEntropy(4), token=place)
    (tmp_path / "ca" / "root.key").write_bytes((tmp_path / "other" / "root.key").read_bytes())
    with pytest.raises(TokenAwayError) as refused:
        ca_directory.load(tmp_path / "ca").issuer(Purpose.EST, now=NOON, entropy=SeededEntropy(5))
    assert "it is another key" in refused.value.explain_cause()
    assert other.has_root


def test_the_passphrase_moves_without_the_token(tmp_path: Path, place: TokenPlace) -> None:
    before = made(tmp_path, place)
    taken_away(tmp_path)
    new = Passphrase(tmp_path / "ca", f"file:{tmp_path}/secret")
    assert move(tmp_path / "ca", Passphrase(tmp_path / "ca"), new, SeededEntropy(5)) == 0
    assert ca_directory.load(tmp_path / "ca", new).certificates == before.certificates


def test_the_command_makes_them_and_openssl_agrees(tmp_path: Path, place: TokenPlace) -> None:
    from typer.testing import CliRunner

    from birthmark.cli.app import app

    ca = str(tmp_path / "ca")
    options = ["--token", "CA", "--module", str(place.module), "--pin-file", str(place.pin_file)]
    for command in (["init", "--name", "Example", *options], ["issue", "device-1", "--out-dir", str(tmp_path)]):
        done = CliRunner().invoke(app, ["ca", *command, "--dir", ca], catch_exceptions=False)
        assert done.exit_code == 0, done.stderr
    leaf = tmp_path / "device-1.cert.pem"
    verify = ["openssl", "verify", "-x509_strict", "-CAfile", f"{ca}/root.pem", "-untrusted", str(leaf), str(leaf)]
    assert subprocess.run(verify, check=True, capture_output=True, text=True).stdout.strip().endswith("OK")
    without = CliRunner().invoke(app, ["ca", "init", "--name", "X", "--token", "CA", "--dir", f"{ca}2"])
    assert without.exit_code == 2


def test_a_root_that_replaces_one_in_a_token_is_made_there_too(tmp_path: Path, place: TokenPlace) -> None:
    (first,) = made(tmp_path, place).generations
    generations = Generations(tmp_path, first, Passphrase(tmp_path / "ca"), FakeClock(), SeededEntropy(8))
    newer = generations.make(first)
    (directory,) = tmp_path.glob("ca-*")
    assert "PKCS#11 PROVIDER URI" in (directory / "root.key").read_text()
    assert newer.anchor != first.anchor


def test_a_root_that_was_given_up_is_not_taken_up_again(tmp_path: Path) -> None:
    (first,) = ca_directory.create(tmp_path / "ca", "Test", now=NOON, entropy=SeededEntropy()).generations
    generations = Generations(tmp_path, first, Passphrase(tmp_path / "ca"), FakeClock(), SeededEntropy(8))
    given_up = generations.make(first)
    assert generations.make(first).anchor == given_up.anchor  # a start that was interrupted
    generations.abandon(given_up.anchor.thumbprint)
    assert generations.make(first).anchor != given_up.anchor


def test_what_a_root_elsewhere_signs_has_its_key_in_the_token_too(tmp_path: Path, place: TokenPlace) -> None:
    root = ca_directory.create(tmp_path / "root-ca", "Root", now=NOON, entropy=SeededEntropy(7), flat=True)
    here = tmp_path / "ca"
    for number, (purpose, organization) in enumerate([(Purpose.DEVICES, "Test"), (Purpose.SERVERS, None)]):
        with_token = place if organization else None  # then it is where the first one is
        asked = ask(here, purpose, now=NOON, entropy=SeededEntropy(number), organization=organization, token=with_token)
        request = read_request(asked.encode(), root.anchor, NOON).request
        profile, serial = BELOW[purpose][1], new_serial(SeededEntropy(number))
        made = issue(profile, request.subject, request.public_key, issuer=root.root, serial=serial, now=NOON)
        install(here, f"{made.pem()}{root.anchor.pem()}".encode(), NOON)
        assert b"pkcs11:" in base64.b64decode((here / f"{purpose}.key").read_text().split("-----")[2])
    loaded = ca_directory.load(here)
    assert not loaded.has_root
    assert {place_of(one.private_key) for one in loaded.issuers.values()} == {place}
    assert sorted(one.suffix for one in here.iterdir() if one.suffix in {".pending", ".asked"}) == []


async def issued(ca: CertificateAuthority, _directory: Path) -> None:
    await ca.issue(parse_csr(a_csr("pump-1")), OPERATOR)


async def issued_at_aws(ca: CertificateAuthority, _directory: Path) -> None:
    aws = AwsIot(ACCOUNT, ca.database, ca.clock, ca.entropy, lambda: ca.hierarchy.issuing)
    request = x509.load_der_x509_csr(a_csr("pump-1")).public_bytes(Encoding.PEM).decode()
    await aws.certificates.create_from_csr(request, CertificateStatus.ACTIVE, actor="test")


async def answered(ca: CertificateAuthority, _directory: Path) -> None:
    await OcspResponder(ca, lambda _: True).answer(a_request(1, ca.hierarchy.issuing.certificate), "192.0.2.1")


async def a_root(ca: CertificateAuthority, directory: Path) -> None:
    (first,) = ca.hierarchy.generations
    roots = Generations(directory, first, Passphrase(directory / "ca"), ca.clock, ca.entropy)
    await Rollovers(ca.hierarchy, roots, ca.database, ca.clock).start("test")


@pytest.mark.parametrize("work", [issued, issued_at_aws, answered, a_root])
async def test_others_are_served_while_a_token_signs(
    tmp_path: Path, place: TokenPlace, work: Callable[[CertificateAuthority, Path], Awaitable[None]]
) -> None:
    hierarchy = made(tmp_path, place)
    database = await open_database(f"sqlite:///{tmp_path}/x.db", FakeClock())
    ca = CertificateAuthority(hierarchy, database, FakeClock(), SeededEntropy(2))
    await ca.note_issuers()
    is_busy, was_served = threading.Event(), threading.Event()
    noticed: list[bool] = []

    def hold() -> None:
        with LOCK:  # as another signature does
            is_busy.set()
            noticed.append(was_served.wait(20))

    holding = threading.Thread(target=hold)
    holding.start()
    is_busy.wait()
    task = asyncio.ensure_future(work(ca, tmp_path))
    asyncio.get_running_loop().call_later(0.2, was_served.set)
    await task
    holding.join()
    assert noticed == [True]
    await database.close()
