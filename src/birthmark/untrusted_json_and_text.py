"""Untrusted text: JSON and numbers, safe output, and error reasons of the system."""

import codecs
import json
import re
from collections.abc import Callable, Sequence
from math import isinf
from typing import Any, TypeVar, overload
from urllib.parse import SplitResult, urlsplit

import msgspec

from birthmark.errors import BirthmarkError
from birthmark.msgspec_type_preparation import prepare_type
from birthmark.text_file_encodings import unseen, utf_16_of

_T = TypeVar("_T")
_MAX_REASON_CHARS = 300
MAX_URL_CHARS = 2048

_MAX_DIGITS = 18  # within 64 bits

_FORMULA = re.compile(r"(?<!\s)\s*+(?=[=+\-@\uff1d\uff0b\uff0d\uff20])")
"""White space before a formula's sign, from its start; full-width signs count in Japan."""
_AT_BYTE, _MOST_BYTES = re.compile(r"\(byte ([0-9]+)\)"), 4
"""Position of an error, and the maximum bytes per character."""
_SIGNED = re.compile(r"\b(sig|SharedAccessKey)=[^&;\s'\"]+", re.IGNORECASE)
_SEPARATOR = re.compile(r"[\t\r\n]")


def _finite(digits: str) -> float:
    value = float(digits)
    if isinf(value):
        raise ValueError("Number out of range")
    return value


_decoders: dict[Any, Any] = {}


@overload
def decode_json(body: bytes | str, kind: type[_T]) -> _T: ...
@overload
def decode_json(body: bytes | str, kind: Any = Any) -> Any: ...
def decode_json(body: bytes | str, kind: Any = Any) -> Any:
    """Return JSON as `kind`. Raise the errors of msgspec, and `RecursionError`, with a readable message.

    Python parses the decimal numbers: msgspec takes 20 us for one near the ends of the range, and a peer may send forty
    thousand of them.
    """
    if (decoder := _decoders.get(kind)) is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(prepare_type(kind), float_hook=_finite)  # noqa: TID251 - this is it
    if isinstance(body, bytes) and body.startswith(codecs.BOM_UTF8):  # RFC 8259 section 8.1
        body = body[len(codecs.BOM_UTF8) :]
    try:
        return decoder.decode(body)
    except UnicodeDecodeError as error:
        raise _not_utf_8(body, error) from error
    except RecursionError as error:
        raise RecursionError("it is nested too deeply") from error
    except msgspec.DecodeError as error:
        if isinstance(body, bytes) and utf_16_of(body) is not None:
            raise msgspec.DecodeError("it is UTF-16: send UTF-8") from error
        if not isinstance(error, msgspec.ValidationError) and (more := describe_unseen_at_error(body, str(error))):
            raise msgspec.DecodeError(f"{error}{more}") from error
        raise


def describe_unseen_at_error(body: bytes | str, said: str) -> str:
    """Return the line of the error that `said` describes, with its first confusable character."""
    raw = body if isinstance(body, bytes) else body.encode(errors="surrogatepass")
    at = int(found[1]) if (found := _AT_BYTE.search(said)) else len(raw)
    before = raw[: at + _MOST_BYTES].replace(b"\r\n", b" \n").replace(b"\r", b"\n")
    begin = before.rfind(b"\n", 0, at) + 1
    seen = unseen(before[begin:].partition(b"\n")[0].decode(errors="ignore"), 1)
    line = before.count(b"\n", 0, begin) + 1
    return seen and f", line {line}{seen}"


class NotUtf8Error(UnicodeDecodeError):
    """A decoding error with a readable message; `start` counts from the first byte of the body."""

    def __str__(self) -> str:
        return f"it is not UTF-8 at byte {self.start + 1}"


def _not_utf_8(body: bytes | str, error: UnicodeDecodeError) -> UnicodeDecodeError:
    try:
        body.decode() if isinstance(body, bytes) else body.encode()
    except UnicodeDecodeError as whole:
        error = whole
    except UnicodeEncodeError:
        pass
    return NotUtf8Error(*error.args)


def read_json(body: bytes, kind: type[_T], refused: Callable[..., BirthmarkError]) -> _T:
    """Return JSON as `kind`, or raise `refused` with the fact `detail`: position and reason."""
    try:
        return decode_json(body, kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise refused(detail=str(error)[:_MAX_REASON_CHARS]) from error


class KeyTwiceError(ValueError):
    """A JSON object has a duplicate key."""


def keys_once(members: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, as `object_pairs_hook` of `json.loads`. Raise `KeyTwiceError` for a duplicate key.

    Readers differ in which duplicate counts, and the user's intent is unknown.
    """
    found: dict[str, Any] = {}
    for name, value in members:
        if name in found:
            raise KeyTwiceError(f"an object has the key {json.dumps(name)[:_MAX_REASON_CHARS]} twice")
        found[name] = value
    return found


def check_keys_once(text: str, refused: Callable[..., BirthmarkError]) -> None:
    """Raise `refused`, with the fact `detail`, for JSON with a duplicate key in an object."""
    try:
        json.loads(text, object_pairs_hook=keys_once)
    except KeyTwiceError as error:
        raise refused(detail=str(error)) from error
    except (ValueError, RecursionError):  # the decoder reports it
        return


def split_url(url: str) -> SplitResult:
    """Return the parts of an untrusted URL. Raise `ValueError`, also for one that is too long or not ASCII.

    `urlsplit` normalizes a host that is not ASCII, which takes time by the square of its length.
    """
    if len(url) > MAX_URL_CHARS or not url.isascii():
        raise ValueError(f"a URL has at most {MAX_URL_CHARS} characters, all of ASCII")
    return urlsplit(url)


def is_deeper(value: object, levels: int) -> bool:
    """Return whether a JSON value is nested more than `levels` deep."""
    inside = [value]
    for _ in range(levels):
        nested = [one for one in inside if isinstance(one, dict | list)]
        inside = [below for one in nested for below in (one.values() if isinstance(one, dict) else one)]
    return any(isinstance(one, dict | list) for one in inside)


def whole_number(text: str) -> int | None:
    """Return the number in ASCII digits, or None.

    `int` accepts far more forms, and `str.isdigit` accepts characters that are not decimal digits.
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else None


def printable(text: str) -> str:
    """Return `text` on one line with nonprintable characters escaped, so that it cannot forge log lines."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)


def visible_lines(text: str) -> list[str]:
    """Return the nonempty lines, without invisible characters and surrounding white space."""
    lines = ("".join(char for char in line if char.isprintable()).strip() for line in text.splitlines())
    return [line for line in lines if line]


def readable(body: bytes) -> tuple[str, str]:
    """Return a message body as text and its encoding: `utf-8`, or `hex` if it is not text."""
    try:
        return body.decode(), "utf-8"
    except UnicodeDecodeError:
        return body.hex(), "hex"


def reason_of(problem: BaseException) -> str:
    """Return the reason from the system or a library as text, never the name of a Python class."""
    if isinstance(problem, TimeoutError):
        return "timed out"
    said = problem.strerror.lower() if isinstance(problem, OSError) and problem.strerror else str(problem)
    return without_signatures(said) or "unknown reason"


def without_signatures(text: str) -> str:
    """Return a library's message without the Azure keys and signatures that it may quote."""
    return _SIGNED.sub(r"\1=****", text)


def cell(value: object) -> str:
    """Return the text of a CSV cell that no spreadsheet evaluates as a formula.

    A cell also starts after a semicolon, if numbers have a decimal comma, and after a tab or a line end.
    """
    text = "" if value is None else _FORMULA.sub(_quote_formula, str(value))
    return f"'{text}" if text.startswith(("\t", "\r", "\n")) else text


def _quote_formula(match: re.Match[str]) -> str:
    is_first = match.start() == 0 or match.string[match.start() - 1] == ";"
    return ("'" if is_first else "") + _SEPARATOR.sub(r"\g<0>'", match.group())


def masked_query(url: str) -> str:
    """Return a URL for users without write permission, with its query masked, which may be a key."""
    address, mark, _ = url.partition("?")
    return f"{address}?****" if mark else url
