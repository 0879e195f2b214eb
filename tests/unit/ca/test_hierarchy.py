from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from birthmark.ca import ca_directory, hierarchy_files
from birthmark.ca.ca_directory import CaExistsError, CaMissingError
from birthmark.ca.hierarchy import Hierarchy
from birthmark.ca.hierarchy_files import CaBusyError
from birthmark.ca.key_files import SecretExposedError, SecretUnreadableError
from birthmark.pki.certificate_profiles import Purpose
from birthmark.pki.path_validation import build_chain
from support.fakes import NOON, SeededEntropy
from support.pki.pki_builders import a_ca


def made(directory: Path, **options: Any) -> Hierarchy:
    return ca_directory.create(directory, "Test Maker", now=NOON, entropy=SeededEntropy(), **options)


def test_a_hierarchy_is_the_same_when_it_is_read_again(tmp_path: Path) -> None:
    before = made(tmp_path / "ca")
    after = ca_directory.load(tmp_path / "ca")
    assert after.issuers == before.issuers
    assert after.issuing.private_key.public_key() == after.issuing.certificate.public_key()
    assert build_chain(after.issuing.certificate, [], after.anchors, NOON) == after.certificates


def test_the_root_lives_for_twenty_years(tmp_path: Path) -> None:
    root = made(tmp_path / "ca").root.certificate
    assert timedelta(days=20 * 365) < root.not_after - NOON < timedelta(days=20 * 366)


def test_a_flat_hierarchy_has_one_certificate(tmp_path: Path) -> None:
    flat = made(tmp_path / "ca", flat=True)
    assert flat.issuing == flat.root
    assert flat.certificates == flat.anchors
    assert ca_directory.load(tmp_path / "ca").issuers == flat.issuers


def test_a_ca_is_never_overwritten(tmp_path: Path) -> None:
    made(tmp_path / "ca")
    with pytest.raises(CaExistsError):
        made(tmp_path / "ca")


def test_of_several_that_make_one_at_the_same_moment_one_makes_it_whole(tmp_path: Path) -> None:
    def made(place: Path, seed: int) -> Hierarchy | None:
        try:
            return ca_directory.create(place, "Plant", now=NOON, entropy=SeededEntropy(seed))
        except CaExistsError:
            return None

    with ThreadPoolExecutor(4) as several:
        for number in range(20):
            place = tmp_path / str(number)
            (one,) = filter(None, several.map(made, [place] * 4, range(4)))
            assert ca_directory.load(place).root.certificate == one.root.certificate
    assert not list(tmp_path.glob(".*"))


def test_what_a_killed_run_left_beside_goes_with_the_next(tmp_path: Path) -> None:
    for left in (".ca.new", ".ca.new-killed"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "root.key").touch()
    a_hierarchy = ca_directory.create(tmp_path / "ca", "Plant", now=NOON, entropy=SeededEntropy())
    assert a_hierarchy.has_root
    assert [one.name for one in tmp_path.iterdir()] == ["ca"]


def test_a_directory_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "ca").mkdir()
    (tmp_path / "ca" / "precious").write_text("x")
    with pytest.raises(CaExistsError):
        made(tmp_path / "ca")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca"]


def test_no_ca_is_said_as_such(tmp_path: Path) -> None:
    with pytest.raises(CaMissingError):
        ca_directory.load(tmp_path)


def test_keys_are_encrypted_and_for_the_owner_only(tmp_path: Path) -> None:
    made(tmp_path / "ca")
    for name in ("root.key", "issuing.key", "passphrase"):
        assert (tmp_path / "ca" / name).stat().st_mode & 0o777 == 0o600
    assert "ENCRYPTED PRIVATE KEY" in (tmp_path / "ca" / "root.key").read_text()


@pytest.mark.parametrize("name", ["root.key", "issuing.key", "passphrase"])
def test_a_secret_that_others_can_read_stops_the_start(tmp_path: Path, name: str) -> None:
    made(tmp_path / "ca")
    (tmp_path / "ca" / name).chmod(0o640)
    with pytest.raises(SecretExposedError) as refusal:
        ca_directory.load(tmp_path / "ca")
    assert "chmod go=" in refusal.value.explain_fix()


def test_a_key_with_another_passphrase_or_certificate_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "ca")
    ca = tmp_path / "ca"
    ca.joinpath("issuing.pem").write_text(ca.joinpath("root.pem").read_text())
    with pytest.raises(SecretUnreadableError):
        ca_directory.load(ca)
    ca.joinpath("passphrase").write_text("another\n")
    with pytest.raises(SecretUnreadableError):
        ca_directory.load(ca)


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hierarchy]:
    """A CA in whose directory another process is at work, and does not end."""
    ca = made(tmp_path / "ca")
    monkeypatch.setattr(hierarchy_files, "_PATIENCE", 2)
    with hierarchy_files.alone_in(tmp_path / "ca"):
        yield ca


def test_who_is_in_the_way_of_another_ca_is_named_and_not_waited_for_without_end(held: Hierarchy) -> None:
    with pytest.raises(CaBusyError) as refused:
        held.issuer(Purpose.EST, now=NOON, entropy=SeededEntropy(1))
    assert "kill" in refused.value.explain_fix()


def test_a_responder_is_made_while_another_process_is_at_work_in_the_directory(held: Hierarchy) -> None:
    made = held.keeper.pair("ocsp-test", lambda _: True, lambda: a_ca("OCSP").as_issuer)
    again = held.keeper.pair("ocsp-test", lambda _: True, lambda: a_ca("Another").as_issuer)
    assert again.certificate == made.certificate
