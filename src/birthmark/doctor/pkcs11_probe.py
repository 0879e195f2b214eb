"""Probe of a PKCS#11 library in a separate process: `python -m birthmark.doctor.pkcs11_probe`.

The question arrives on standard input. One login is tried, and none if the token reports that it would be the last
attempt. The answer is one line of JSON on the process's original standard output; output of the library is redirected.
"""

import contextlib
import hashlib
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pkcs11
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pkcs11 import exceptions as p11
from pkcs11.constants import Attribute, ObjectClass, TokenFlag

from birthmark.doctor.facts import KeyFacts, TokenFacts
from birthmark.errors import BirthmarkError
from birthmark.keys.pin import Pin
from birthmark.keys.pkcs11_key import TokenKey
from birthmark.keys.pkcs11_library_lifecycle import kind_of, load_library, stop_library
from birthmark.keys.pkcs11_token import Pkcs11Token, bytes_of, text_of
from birthmark.secure_elements.atecc.emulated_pkcs11_token import AteccToken, is_atecc, list_atecc
from birthmark.untrusted_json_and_text import decode_json

MAX_QUESTION_BYTES = 64 * 1024
_MAX_KEYS = 64
_MAX_PRINTED_BYTES = 4 * 1024 * 1024


class ProbeQuestion(msgspec.Struct, frozen=True):
    """A library, a token and a PIN to probe."""

    module: str
    token: str | None = None
    serial: str | None = None
    slot: int | None = None
    pin_file: str | None = None
    pin: str | None = None

    def __repr__(self) -> str:
        return f"Question({self.module!r}, {self.token!r})"


class ProbeAnswer(msgspec.Struct, frozen=True):
    """Result of the probe: the tokens, the opened token and its keys, and the error, if any."""

    tokens: tuple[TokenFacts, ...] = ()
    opened: str = ""
    keys: tuple[KeyFacts, ...] = ()
    code: str = ""
    cause: str = ""
    detail: str = ""


def ask(question: ProbeQuestion) -> ProbeAnswer:
    """List the tokens, open the selected one, and list its keys."""
    tokens: tuple[TokenFacts, ...] = ()
    opened = ""
    keys: tuple[KeyFacts, ...] = ()
    try:
        tokens = tuple(_tokens(Path(question.module)))
        chosen = [one for one in tokens if _is_meant(one, question)]
        if len(chosen) == 1 and (held := _held_back(chosen[0])) is not None:
            return msgspec.structs.replace(held, tokens=tokens)
        with _open(question) as token:
            opened, keys = token.info.label, tuple(_keys(token))
    except BirthmarkError as error:
        detail = _root_of(error) or error.facts.get("detail", "")
        return ProbeAnswer(tokens, opened, keys, error.code, error.explain_cause(), detail)
    except p11.PKCS11Error as error:
        return ProbeAnswer(
            tokens, opened, keys, "keys.token_failed", f"The token failed: {kind_of(error)}.", str(error)
        )
    return ProbeAnswer(tokens, opened, keys)


def _is_meant(token: TokenFacts, question: ProbeQuestion) -> bool:
    return question.token in {None, token.label} and question.slot in {None, token.slot_id}


def _held_back(token: TokenFacts) -> ProbeAnswer | None:
    if token.is_locked:
        cause = f"Token {token.label} is locked after too many wrong PINs."
        return ProbeAnswer(code="keys.pin_locked", cause=cause, detail="the token reports that its PIN is locked")
    if token.is_last_try:
        return ProbeAnswer(code="doctor.pin_last_try", cause="One more wrong PIN locks the token.")
    return None


def _tokens(module: Path) -> Iterator[TokenFacts]:
    if is_atecc(module):
        yield from (TokenFacts(info.label, info.slot_id, info.manufacturer) for info in list_atecc(module))
        return
    for slot in load_library(module).get_slots(token_present=True):
        with contextlib.suppress(p11.TokenNotPresent, p11.TokenNotRecognised, p11.DeviceRemoved):
            token = slot.get_token()
            if token.flags & TokenFlag.TOKEN_INITIALIZED:
                yield TokenFacts(
                    token.label,
                    slot.slot_id,
                    token.manufacturer_id,
                    needs_pin=bool(token.flags & TokenFlag.LOGIN_REQUIRED),
                    is_last_try=bool(token.flags & TokenFlag.USER_PIN_FINAL_TRY),
                    is_locked=bool(token.flags & TokenFlag.USER_PIN_LOCKED),
                )


def _open(question: ProbeQuestion) -> Pkcs11Token:
    pin = None if question.pin is None else Pin(question.pin)
    if question.pin_file is not None:
        pin = Pin.from_file(Path(question.pin_file))
    if is_atecc(Path(question.module)):
        return AteccToken.at(Path(question.module), label=question.token, slot_id=question.slot)
    place = {"label": question.token, "serial": question.serial, "slot_id": question.slot}
    return Pkcs11Token.open(Path(question.module), **place, pin=pin)  # type: ignore[arg-type] # one table for three types


def _keys(token: Pkcs11Token) -> Iterator[KeyFacts]:
    with token.session() as session:
        items = list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY}))[:_MAX_KEYS]
        named = [(text_of(item, Attribute.LABEL), bytes_of(item, Attribute.ID)) for item in items]
    for label, key_id in named:
        yield KeyFacts(label, key_id.hex(), _public_of(token, label, key_id))


def _public_of(token: Pkcs11Token, label: str, key_id: bytes) -> str:
    """Return the SHA-256 of the public key; empty if the secure element does not provide it."""
    with contextlib.suppress(BirthmarkError, p11.PKCS11Error, ValueError):
        key = TokenKey.find(token, label=label or None, key_id=key_id or None).public_key
        return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
    return ""


def _root_of(error: BaseException) -> str:
    """Return the library's own error message."""
    cause = error.__cause__
    return "" if not isinstance(cause, pkcs11.PKCS11Error) else f"{kind_of(cause)} {cause}".strip()


def main() -> None:
    """Answer the probe question on standard input."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (_MAX_PRINTED_BYTES, _MAX_PRINTED_BYTES))
    answer_to = os.dup(1)
    os.dup2(2, 1)
    question: Any = decode_json(sys.stdin.buffer.read(MAX_QUESTION_BYTES), ProbeQuestion)
    answer = msgspec.json.encode(ask(question))
    stop_library()
    os.write(answer_to, answer + b"\n")
    os.close(answer_to)
    os._exit(0)  # some libraries crash at exit, after the output


if __name__ == "__main__":
    main()
