"""An open token: one session that the process shares, and the private keys in it.

In PKCS#11, sessions and logins belong to the process, and an SE050 has 3 sessions in total. So opening a token twice
returns the same session, which closes with its last user.
"""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import pkcs11
from pkcs11 import exceptions as p11
from pkcs11.constants import Attribute, ObjectClass, TokenFlag

from birthmark.errors import BirthmarkError
from birthmark.keys.errors import (
    KeyAmbiguousError,
    KeyNotFoundError,
    PinLockedError,
    PinMissingError,
    PinWrongError,
    TokenAmbiguousError,
    TokenFailedError,
    TokenNotFoundError,
)
from birthmark.keys.pin import Pin
from birthmark.keys.pkcs11_library_lifecycle import LOCK, generation, kind_of, load_library
from birthmark.keys.se050_labels import is_same_label

log = logging.getLogger(__name__)

_PIN_REFUSED = (p11.PinIncorrect, p11.PinInvalid, p11.PinLenRange, p11.PinExpired, p11.ArgumentsBad)
_NOT_TOLD = (p11.AttributeTypeInvalid, p11.AttributeSensitive, p11.ArgumentsBad, p11.FunctionFailed)
_PIN_LOCKED = (p11.PinLocked, p11.UserPinNotInitialized)
_refused: set[tuple[str, str, bytes]] = set()
"""Rejected PINs: label and serial number of the token, and the digest of the PIN.

A rejected PIN is not tried again, as a chip locks after a few attempts. A new attempt requires another PIN or a new
process.
"""


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """Token information that is available without login."""

    label: str
    manufacturer: str
    model: str
    serial: str
    slot_id: int
    is_initialized: bool
    needs_pin: bool

    def __str__(self) -> str:
        return f"'{self.label}' in slot {self.slot_id}"


@dataclass(slots=True)
class _SharedSession:
    session: pkcs11.Session
    generation: int
    users: int = 0


_open: dict[tuple[Path, int], _SharedSession] = {}


def list_tokens(module: Path) -> tuple[TokenInfo, ...]:
    """Return the tokens of the library without logging in, except SoftHSM's blank slots."""
    with LOCK, translated("the library"):
        found = (_info(token) for token in _each(module))
        return tuple(info for info in found if info.is_initialized)


@dataclass(slots=True)
class Pkcs11Token:
    """An open token; close it, or use it in a `with`."""

    info: TokenInfo
    module: Path
    _shared: _SharedSession = field(repr=False)
    _is_open: bool = field(default=True, repr=False)

    @classmethod
    def open(
        cls,
        module: Path,
        *,
        label: str | None = None,
        serial: str | None = None,
        slot_id: int | None = None,
        pin: Pin | None = None,
    ) -> Self:
        """Open the one token that matches. Raise `TokenNotFoundError`, `TokenAmbiguousError` or a PIN error."""
        with LOCK, translated(label or "?"):
            token = _choose(module, label, serial, slot_id)
            info = _info(token)
            key = (module.resolve(), info.slot_id)
            shared = _open.get(key)
            if shared is None or shared.generation != generation():
                shared = _open[key] = _SharedSession(_login(token, info, pin), generation())
            shared.users += 1
            return cls(info, module, shared)

    def close(self) -> None:
        """Release the session; the last release logs out. Idempotent."""
        with LOCK:
            if not self._is_open:
                return
            self._is_open = False
            self._shared.users -= 1
            if self._shared.users or self._shared.generation != generation():
                return
            _open.pop((self.module.resolve(), self.info.slot_id), None)
            with contextlib.suppress(p11.PKCS11Error):
                self._shared.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def session(self) -> Iterator[pkcs11.Session]:
        """Hold the session exclusively; the library's errors are converted."""
        with LOCK, translated(self.info.label):
            if not self._is_open or self._shared.generation != generation():
                raise TokenFailedError(detail="the session has been closed")
            yield self._shared.session

    def find_private_key(self, *, label: str | None = None, key_id: bytes | None = None) -> Any:
        """Return the private key with this label (either byte order) or CKA_ID, or the token's only key.

        Raise `KeyNotFoundError` or `KeyAmbiguousError`, which list the keys.
        """
        with self.session() as session:
            every = list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY}))
            named = [(text_of(key, Attribute.LABEL), bytes_of(key, Attribute.ID), key) for key in every]
            matching = [
                (name, key)
                for name, number, key in named
                if (label is None or is_same_label(label, name)) and (key_id is None or key_id == number)
            ]
            exact = [(name, key) for name, key in matching if name == label]
            chosen = exact if len(exact) == 1 else matching
            if len(chosen) == 1:
                return chosen[0][1]
        wanted = (
            " and ".join([*([f"label '{label}'"] if label else []), *([f"id {key_id.hex()}"] if key_id else [])])
            or "without a name"
        )
        found = ", ".join(f"'{name}'" for name, _number, _key in named) or "none visible with this PIN"
        error = KeyAmbiguousError if chosen else KeyNotFoundError
        raise error(token=self.info.label, wanted=wanted, found=found)


def text_of(item: pkcs11.Object, attribute: Attribute) -> str:
    """Return a text attribute, empty if the token has none."""
    with contextlib.suppress(*_NOT_TOLD):
        return str(item[attribute])
    return ""


def bytes_of(item: pkcs11.Object, attribute: Attribute) -> bytes:
    """Return a binary attribute, empty if the token has none or does not disclose it."""
    with contextlib.suppress(*_NOT_TOLD):
        return bytes(item[attribute])
    return b""


@contextlib.contextmanager
def translated(token: str) -> Iterator[None]:
    """Translate the library's errors into Birthmark errors."""
    try:
        yield
    except BirthmarkError:
        raise
    except p11.UserNotLoggedIn as error:
        raise PinMissingError(token=token) from error
    except p11.PKCS11Error as error:
        raise TokenFailedError(detail=f"{kind_of(error)} {error}".strip()) from error


def _each(module: Path) -> Iterator[pkcs11.Token]:
    for slot in load_library(module).get_slots(token_present=True):
        with contextlib.suppress(p11.TokenNotPresent, p11.TokenNotRecognised, p11.DeviceRemoved):
            yield slot.get_token()


def _info(token: pkcs11.Token) -> TokenInfo:
    return TokenInfo(
        label=token.label,
        manufacturer=token.manufacturer_id,
        model=token.model,
        serial=bytes(token.serial).decode("ascii", "replace").strip(),
        slot_id=token.slot.slot_id,
        is_initialized=bool(token.flags & TokenFlag.TOKEN_INITIALIZED),
        needs_pin=bool(token.flags & TokenFlag.LOGIN_REQUIRED),
    )


def _choose(module: Path, label: str | None, serial: str | None, slot_id: int | None) -> pkcs11.Token:
    every = [(token, _info(token)) for token in _each(module)]
    usable = [(token, info) for token, info in every if info.is_initialized]
    matching = [
        token
        for token, info in usable
        if (label is None or info.label == label)
        and (serial is None or info.serial == serial)
        and (slot_id is None or info.slot_id == slot_id)
    ]
    if len(matching) == 1:
        return matching[0]
    asked = (("label", label), ("serial", serial), ("slot", slot_id))
    wanted = ", ".join(f"{name} '{value}'" for name, value in asked if value is not None) or "(no name was given)"
    found = ", ".join(str(info) for _token, info in usable) or "no initialized token"
    if matching:
        raise TokenAmbiguousError(wanted=wanted, found=found)
    raise TokenNotFoundError(wanted=wanted, found=found)


def _login(token: pkcs11.Token, info: TokenInfo, pin: Pin | None) -> pkcs11.Session:
    if info.needs_pin and pin is None:
        raise PinMissingError(token=info.label)
    if pin is not None:
        pin.check_blanks()
    text = None if pin is None else pin.reveal()
    tried = (info.label, info.serial, sha256((text or "").encode()).digest())
    if tried in _refused:
        raise PinWrongError(token=info.label)
    try:
        try:
            return token.open(rw=True, user_pin=text)
        except p11.TokenWriteProtected:
            return token.open(rw=False, user_pin=text)
    except _PIN_LOCKED as error:
        raise PinLockedError(token=info.label) from error
    except _PIN_REFUSED as error:
        _refused.add(tried)
        raise PinWrongError(token=info.label) from error
