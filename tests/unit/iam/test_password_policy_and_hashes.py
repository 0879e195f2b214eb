"""Which passwords are taken, and how they are kept."""

import asyncio
import time
from typing import Literal

import pytest
from argon2 import PasswordHasher

from birthmark.iam.password_policy_and_hashes import Passwords, PasswordUnfitError, check_password
from support.fakes import SeededEntropy

CHEAP = PasswordHasher(1, 8, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        "short",
        "aaaaaaaaaaaaa",
        "123456789012",
        "password1234",
        "Anna-Annarosa1",
        "x" * 12 + "\0",
        "é" * 600 + "abcdefgh",
        "u\u0308\u0304" * 600 + "abcdefgh",  # composed, each is two bytes
    ],
)
def test_what_is_guessed_first_is_not_taken(wrong: str) -> None:
    with pytest.raises(PasswordUnfitError):
        check_password(wrong, "annarosa")


@pytest.mark.parametrize(
    "good", ["four words by chance", "correcthorsebattery", "пароль из слов", "a password of my own dog"]
)
def test_everything_else_is_whatever_it_is_composed_of(good: str) -> None:
    check_password(good, "anna")


async def test_a_password_is_the_same_however_a_keyboard_composed_it() -> None:
    passwords = Passwords(SeededEntropy(), CHEAP)
    kept = await passwords.digest("café au lait\u00a0noir")
    assert await passwords.matches("cafe\u0301 au lait noir", kept)
    assert not await passwords.matches("cafe au lait noir", kept)


async def test_a_password_of_marks_that_are_put_in_order_costs_what_its_first_kilobyte_does() -> None:
    passwords = Passwords(SeededEntropy(), CHEAP)

    async def cost(chars: int) -> float:
        began = time.thread_time()
        await passwords.matches("a" + "\u0300\u0316" * chars, None)
        return time.thread_time() - began

    costs = [min([await cost(chars) for _ in range(3)]) for chars in (500, 10_000)]
    assert costs[1] < 4 * costs[0]


async def test_a_password_is_not_right_by_its_first_kilobyte() -> None:
    passwords = Passwords(SeededEntropy(), CHEAP)
    for chars in (1023, 1024, 1025):
        assert not await passwords.matches("x" * 2000, await passwords.digest("x" * chars))


async def test_nobodys_password_is_right_and_takes_as_long() -> None:
    """The decoy has the same cost as what is kept of passwords."""
    passwords = Passwords(SeededEntropy())
    kept = await passwords.digest("four words by chance")
    assert kept.split("$")[:4] == passwords._decoy.split("$")[:4] == ["", "argon2id", "v=19", "m=65536,t=3,p=4"]
    assert not await passwords.matches("four words by chance", None)


async def test_one_is_digested_at_a_time_whoever_asks() -> None:
    passwords, at_once, most = Passwords(SeededEntropy(), CHEAP), 0, 0

    class Counting(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002 - the library's
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            found = super().verify(hash, password)
            at_once -= 1
            return found

    kept = await passwords.digest("four words by chance")
    passwords.hasher = Counting(1, 8, 1)
    assert all(await asyncio.gather(*(passwords.matches("four words by chance", kept) for _ in range(8))))
    assert most == 1


async def test_a_digest_of_another_cost_is_old() -> None:
    kept = await Passwords(SeededEntropy(), CHEAP).digest("four words by chance")
    assert Passwords(SeededEntropy()).is_old(kept)
    assert not Passwords(SeededEntropy(), CHEAP).is_old(kept)
