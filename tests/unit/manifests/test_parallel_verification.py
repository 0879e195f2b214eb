"""A long manifest is verified by all cores, and says what a short one says."""

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import pytest

from birthmark.manifests.duplicate_chips import Verdict
from birthmark.manifests.errors import MalformedEntryError, ManifestError
from birthmark.manifests.manifest_entry import ManifestEntry
from birthmark.manifests.microchip_verifier import root_of, signer_of, trust_of
from birthmark.manifests.parallel_verification import verify_all
from birthmark.manifests.writer import ManifestChip, ManifestKey, render_entry
from birthmark.pki import certificate_profiles
from support.fakes import NOON
from support.pki.pki_builders import a_ca, a_device, a_key

Verified: TypeAlias = Callable[[bytes], Iterator[Verdict]]
ROOT = a_ca("Rehearsal Root")
ISSUER = a_ca("Crypto Authentication Signer 0001", parent=ROOT, profile=certificate_profiles.ISSUING_CA)
LOG = a_ca("Manifest Signer")
SIGNER = ManifestKey(LOG.certificate, LOG.private_key)  # type: ignore[arg-type]  # the builders make P-256
TRUST = trust_of([signer_of(LOG.certificate)], [root_of(ROOT.certificate)])
COUNT = 100
MANY_BYTES = 60_000
"""Blanks around an entry make a hundred of them a file that is shared out among processes."""


def a_chip(number: int) -> ManifestChip:
    unique_id, key = f"0123{number:012x}01", a_key()
    device = a_device(ISSUER, f"sn{unique_id.upper()}", key=key)
    return ManifestChip(unique_id, [key.public_key()], (device.certificate, ISSUER.certificate))


ENTRIES = [json.dumps(render_entry(a_chip(number), SIGNER, NOON)) for number in range(COUNT)]
ENTRIES[40] = ENTRIES[40].replace('"payload": "e', '"payload": "f')
ENTRIES[60] = ENTRIES[7]
ENTRIES[80] = '{"payload": {}}'


LONG = ("[" + ",\n".join(entry[:-1] + " " * MANY_BYTES + "}" for entry in ENTRIES) + "]").encode()
SHORT = ("[" + ",".join(ENTRIES) + "]").encode()


def said(verdict: Verdict) -> object:
    return (type(verdict), dict(verdict.facts)) if isinstance(verdict, ManifestError) else verdict


@pytest.fixture
def verified(tmp_path: Path) -> Iterator[Verified]:
    with ExitStack() as files:

        def verify(data: bytes) -> Iterator[Verdict]:
            path = tmp_path / "manifest.json"
            path.write_bytes(data)
            return verify_all(files.enter_context(path.open("rb")), TRUST)

        yield verify


def test_a_long_manifest_says_what_a_short_one_says_in_the_same_order(verified: Verified) -> None:
    short = [said(one) for one in verified(SHORT)]
    assert [number for number, one in enumerate(short) if not isinstance(one, ManifestEntry)] == [40, 60, 80]
    assert [said(one) for one in verified(LONG)] == short


def test_what_a_killed_process_had_is_verified_all_the_same(verified: Verified) -> None:
    found = verified(LONG)
    first = [next(found)]
    workers = multiprocessing.active_children()
    assert workers
    for worker in workers:
        worker.kill()
    assert [said(one) for one in (*first, *found)] == [said(one) for one in verified(SHORT)]


def test_a_long_manifest_that_is_cut_off_says_so_after_all_that_is_whole(verified: Verified) -> None:
    found = verified(LONG[: -MANY_BYTES - 10])
    whole = list(islice(found, COUNT - 1))
    assert len(whole) == COUNT - 1
    with pytest.raises(MalformedEntryError, match=rf"Entry {COUNT}: the list does not end with \]"):
        next(found)


def test_where_one_core_may_be_used_no_process_is_started(verified: Verified) -> None:
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(usable)})
    try:
        told = verified(LONG)
        assert isinstance(next(told), ManifestEntry)
        assert not multiprocessing.active_children()
        assert sum(isinstance(one, ManifestEntry) for one in told) + 1 == sum(
            isinstance(one, ManifestEntry) for one in verified(SHORT)
        )
    finally:
        os.sched_setaffinity(0, usable)
