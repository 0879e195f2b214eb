import pytest

from birthmark.auth import password_digests
from birthmark.auth.password_digests import PasswordCheck, hash_generated, hash_password, password_matches
from support.fakes import SeededEntropy

STORED = hash_password("correct horse", SeededEntropy())


def test_only_the_right_password_matches_and_the_digest_does_not_show_it() -> None:
    assert password_matches("correct horse", STORED)
    assert not password_matches("correct hors", STORED)
    assert "horse" not in STORED


async def test_a_password_seen_before_is_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    check = PasswordCheck(SeededEntropy())
    assert await check.matches("correct horse", STORED)
    monkeypatch.setattr(password_digests, "password_matches", None)
    assert await check.matches("correct horse", STORED)


async def test_an_unknown_user_never_matches() -> None:
    check = PasswordCheck(SeededEntropy())
    assert not (await check.matches("", None))
    assert not (await check.matches("x" * 2000, STORED))


async def test_a_password_that_was_made_here_is_checked_at_once_and_a_wrong_one_as_slowly_as_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check, asked = PasswordCheck(SeededEntropy()), []
    monkeypatch.setattr(password_digests, "password_matches", lambda *given: asked.append(given))
    assert check.can_check_quickly("many random bits", hash_generated("many random bits"))
    assert asked == []
    assert not check.can_check_quickly("a guess", hash_generated("many random bits"))
    assert not await check.matches("a guess", hash_generated("many random bits"))
    assert len(asked) == 1, "it takes as long as for a user that is not there"
