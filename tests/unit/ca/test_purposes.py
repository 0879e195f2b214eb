"""A CA for each purpose, made below the root when it is first needed."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from birthmark.ca import ca_directory
from birthmark.ca.hierarchy import Hierarchy
from birthmark.pki.certificate_profiles import DEVICE, EDGE_CA, EST_IDENTITY, FOR_REQUESTS, SERVER, Purpose
from birthmark.pki.certificates import parse_pem
from birthmark.pki.csr import parse_csr
from birthmark.pki.issuance import LeafIssuer
from birthmark.pki.path_validation import build_chain
from support.fakes import NOON, SeededEntropy
from support.pki.ca_world import OPERATOR, an_authority
from support.pki.pki_builders import a_csr

LATER = (Purpose.EST, Purpose.EDGE, Purpose.SERVERS)


def a_hierarchy(path: Path, *, flat: bool = False) -> Hierarchy:
    return ca_directory.create(path / "ca", "Test", now=NOON, entropy=SeededEntropy(), flat=flat)


def needed(hierarchy: Hierarchy, purpose: Purpose, seed: int = 1) -> LeafIssuer:
    return hierarchy.issuer(purpose, now=NOON, entropy=SeededEntropy(seed))


def test_nothing_is_made_before_it_is_needed(tmp_path: Path) -> None:
    a_hierarchy(tmp_path)
    ca_directory.load(tmp_path / "ca")
    names = sorted(one.name for one in (tmp_path / "ca").iterdir())
    assert names == ["issuing.key", "issuing.pem", "passphrase", "root.key", "root.pem"]


@pytest.mark.parametrize("purpose", LATER)
def test_a_ca_that_is_needed_is_made_below_the_root_and_stays(tmp_path: Path, purpose: Purpose) -> None:
    before = a_hierarchy(tmp_path)
    made = needed(before, purpose)
    assert made.certificate.extensions.path_length == (1 if purpose is Purpose.EDGE else 0)
    assert build_chain(made.certificate, [], before.anchors, NOON) == before.above(made)
    assert needed(before, purpose, seed=2) is made
    assert ca_directory.load(tmp_path / "ca").issuers[purpose] == made
    assert (tmp_path / "ca" / f"{purpose}.key").stat().st_mode & 0o777 == 0o600


def test_of_many_processes_that_need_it_at_once_one_makes_it(tmp_path: Path) -> None:
    a_hierarchy(tmp_path)
    others = [ca_directory.load(tmp_path / "ca") for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(needed, others, [Purpose.EST] * 8, range(8)))
    assert len({one.certificate for one in made}) == 1
    assert all(one.private_key.public_key() == made[0].certificate.public_key() for one in made)


def test_a_key_whose_certificate_was_never_written_is_made_anew(tmp_path: Path) -> None:
    ours = a_hierarchy(tmp_path)
    shutil.copy(tmp_path / "ca" / "issuing.key", tmp_path / "ca" / "est.key")
    made = needed(ours, Purpose.EST)
    assert made.certificate.public_key() != ours.issuing.certificate.public_key()
    assert ca_directory.load(tmp_path / "ca").issuers[Purpose.EST] == made


def test_a_flat_hierarchy_signs_everything_by_its_root(tmp_path: Path) -> None:
    flat = a_hierarchy(tmp_path, flat=True)
    assert all(needed(flat, purpose) is flat.root for purpose in Purpose)
    assert flat.above(flat.root) == flat.anchors


async def test_the_profile_says_which_ca_signs(tmp_path: Path) -> None:
    async with an_authority(tmp_path) as ca:
        signed = {}
        for number, profile in enumerate((DEVICE, EST_IDENTITY, EDGE_CA, SERVER)):
            leaf, above, root = await ca.issue(parse_csr(a_csr(f"device-{number}")), OPERATOR, profile)
            assert (above, root) == ca.certificates_for(profile)
            assert build_chain(leaf, [above], ca.hierarchy.anchors, NOON) == (leaf, above, root)
            signed[profile.purpose] = above
        assert {one: issuer.certificate for one, issuer in ca.hierarchy.issuers.items()} == {
            **signed,
            Purpose.ROOT: ca.hierarchy.root.certificate,
        }


async def test_what_is_needed_above_a_certificate_is_its_own_ca_and_the_root(tmp_path: Path) -> None:
    async with an_authority(tmp_path) as ca:
        for profile in FOR_REQUESTS.values():
            above = ca.certificates_for(profile)
            files = [(tmp_path / "ca" / f"{one}.pem").read_text() for one in (profile.purpose, Purpose.ROOT)]
            assert above == tuple(map(parse_pem, files))
