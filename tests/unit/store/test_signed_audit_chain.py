"""What a worker tells of the other chains: what it saw, once, signed by this installation's key."""

from typing import Any

import pytest

from birthmark.audit.signed_heads import AuditKey
from birthmark.store.signed_audit_chain import ChainEnd, OtherChains, head_body, parse_seen, render_seen

KEY, OTHER = AuditKey("the key"), AuditKey("another key")
FIVE, SEVEN = ChainEnd("w2", 5, b"\x05" * 32), ChainEnd("w2", 7, b"\x07" * 32)


def a_head(seen: ChainEnd, others: str | None = "[]", key: AuditKey = KEY) -> dict[str, Any]:
    signature = key.sign(head_body(seen.chain, seen.seq, 1, seen.digest, others))
    return {**seen._asdict(), "at": 1, "signature": signature, "others": others}


def told(*heads: dict[str, Any]) -> tuple[ChainEnd, ...]:
    others = OtherChains("w1", KEY)
    for head in heads:
        others.note([head], 0.0)
    return parse_seen(others.text)


def test_the_latest_end_of_each_other_chain_is_told_in_the_order_of_names() -> None:
    third = ChainEnd("w0", 1, bytes(32))
    assert told(a_head(FIVE), a_head(SEVEN), a_head(third)) == (third, SEVEN)


def test_an_end_that_was_seen_is_not_taken_back() -> None:
    assert told(a_head(SEVEN), a_head(FIVE)) == (SEVEN,)


def test_ones_own_head_says_what_was_seen_before_a_restart_and_is_not_told() -> None:
    assert told(a_head(ChainEnd("w1", 9, bytes(32)), render_seen([SEVEN]))) == (SEVEN,)


@pytest.mark.parametrize("text", [None, render_seen([SEVEN])], ids=["first format", "edited"])
def test_ones_own_head_tells_nothing_when_it_has_nothing_or_was_edited(text: str | None) -> None:
    assert told(a_head(ChainEnd("w1", 9, bytes(32)), "[]") | {"others": text}) == ()


def test_a_head_of_another_key_or_with_another_digest_is_not_vouched_for() -> None:
    assert told(a_head(FIVE, key=OTHER), a_head(FIVE) | {"digest": bytes(32)}) == ()


def test_a_head_of_the_first_format_is_vouched_for() -> None:
    assert told(a_head(FIVE, others=None)) == (FIVE,)


def test_the_format_is_part_of_what_is_signed() -> None:
    assert head_body("a", 1, 1, b"", None) != head_body("a", 1, 1, b"", "[]")


@pytest.mark.parametrize("text", ["", "{}x", "[1]", '[["a"]]', '[["a", 1, "zz"]]', "null", '[["a", null, "00"]]'])
def test_what_are_no_ends_of_chains_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_seen(text)
