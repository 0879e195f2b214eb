"""A bounded run of every fuzz target; what is found prints the command that finds it again.

The seed is the day's, or BIRTHMARK_FUZZ_SEED; `scripts/fuzz` runs for longer.
"""

import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from birthmark.errors import InvalidRequestError
from fuzz import corpus
from fuzz.mutate import read_der, tlv, write_der
from fuzz.run import MAX_GROWTH_MIB, make_input, run, today, try_one
from fuzz.targets import TARGETS, Target

SEED = os.environ.get("BIRTHMARK_FUZZ_SEED", today())
FOUND = Path(__file__).parent / "found"
SECONDS = float(os.environ.get("BIRTHMARK_FUZZ_SECONDS", "0.3"))


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_answers_whatever_it_is_given_with_a_documented_error(name: str) -> None:
    result = run(TARGETS[name], iter(range(1_000_000)), SEED, seconds=SECONDS, keep=1)
    assert not result.found, f"seed {SEED}: {result.found[0]}"
    assert result.inputs > len(TARGETS[name].seeds)
    assert result.growth_mib <= MAX_GROWTH_MIB


@pytest.mark.parametrize(
    "name", ["certificate", "csr", "cms", "chain", "aws-policy", "agent-config", "manifest", "bundle"]
)
def test_what_mutation_begins_with_is_taken(name: str) -> None:
    target = TARGETS[name]
    assert [try_one(target, seed) for seed in target.seeds] == [True] * len(target.seeds)


@pytest.mark.parametrize("path", sorted(FOUND.iterdir()), ids=lambda path: path.name)
def test_what_was_found_once_stays_mended(path: Path) -> None:
    try_one(TARGETS[path.name.rpartition("-")[0]], path.read_bytes())


@given(st.binary(min_size=64, max_size=64))
@example(b"\x81\x3e" + bytes(62))
def test_a_public_key_that_looks_like_der_is_written_back_as_it_was(point: bytes) -> None:
    data = tlv(0x30, tlv(0x03, b"\0\x04" + point))
    assert write_der(read_der(data)) == data


def test_an_input_follows_from_seed_and_number() -> None:
    for target in TARGETS.values():
        assert make_input(target, "a", 77) == make_input(target, "a", 77)
        assert make_input(target, "a", 77) != make_input(target, "b", 77) or len(target.seeds) > 77


def test_an_undocumented_error_is_found_and_named() -> None:
    def parse(data: bytes) -> None:
        raise (InvalidRequestError() if len(data) % 2 else KeyError("found"))

    seeds = (b"even", b"odd")
    result = run(Target("own", lambda _rng, seeds: seeds[0], seeds, parse), iter(range(2)), "s", keep=5)
    assert [(found.number, found.data) for found in result.found] == [(0, b"even")]
    assert "scripts/fuzz --seed s --at 0 own" in str(result.found[0])


def test_the_corpus_is_small() -> None:
    files = list(Path(corpus.FOLDER).iterdir())
    assert sum(file.stat().st_size for file in files) < 64 * 1024
