"""A chip locks after a few wrong PINs: what it refused is not shown to it again."""

from typing import Any

import pytest
from pkcs11 import exceptions as p11

from birthmark.keys.errors import PinWrongError
from birthmark.keys.pin import Pin
from birthmark.keys.pkcs11_token import TokenInfo, _login

INFO = TokenInfo("north", "maker", "model", "4711", 0, is_initialized=True, needs_pin=True)


class Chip:
    """A token that opens with one PIN, and counts what it was shown."""

    def __init__(self, right: str) -> None:
        self.right, self.shown = right, list[str | None]()

    def open(self, *, rw: bool, user_pin: str | None) -> str:
        self.shown.append(user_pin)
        if user_pin != self.right:
            raise p11.PinIncorrect
        return "a session"


def test_a_refused_pin_is_shown_once_and_another_opens() -> None:
    chip: Any = Chip("2222")
    for _ in range(5):
        with pytest.raises(PinWrongError):
            _login(chip, INFO, Pin("1111"))
    assert str(_login(chip, INFO, Pin("2222"))) == "a session"
    assert chip.shown == ["1111", "2222"]
