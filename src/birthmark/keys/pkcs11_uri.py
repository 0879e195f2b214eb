"""PKCS#11 URIs (RFC 7512), which name a key in a token.

Input: `pkcs11:token=…;object=…;type=private?pin-source=file:/…`, at most MAX_URI_CHARS. Output: a `Pkcs11Uri`; its
`str()` is the URI. A URI that contains a PIN is rejected.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from birthmark.keys.errors import PinInUriError, PinSourceInPathError, UriInvalidError

SCHEME = "pkcs11:"
MAX_URI_CHARS = 2048
_TEXTS = ("token", "manufacturer", "serial", "model", "object", "type")
_NO_USE = ("library-manufacturer", "library-version", "library-description", "slot-manufacturer", "slot-description")
_PATH_NAMES = frozenset({*_TEXTS, *_NO_USE, "id", "slot-id"})
_TYPES = frozenset({"public", "private", "cert", "secret-key", "data"})
# RFC 7512 section 2.3: pk11-res-avail and the unreserved characters stay as they are.
_PATH_SAFE = ":[]@!$()*+,=&-._~"
_QUERY_SAFE = ":[]@!$()*+,=/?|-._~"
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SCHEMES = re.compile(r"(?i)(?P<others>(?:[\w.-]+:)*)pkcs11:")
_QUOTES = " \t\r\n\"'"
_OTHER = "it does not start with pkcs11:"
_PLAIN = re.compile(r"[\x21-\x7e]*")


@dataclass(frozen=True, slots=True)
class Pkcs11Uri:
    """A parsed URI; absent attributes are None. `object` and similar attributes match byte for byte."""

    token: str | None = None
    object: str | None = None
    id: bytes | None = None
    type: str | None = None
    serial: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    slot_id: int | None = None
    module_path: Path | None = None
    pin_source: Path | None = None

    def __str__(self) -> str:
        texts = [(name, getattr(self, name)) for name in _TEXTS]
        path = [f"{name}={quote(text, _PATH_SAFE)}" for name, text in texts if text is not None]
        if self.id is not None:  # RFC 7512 section 2.3: all bytes should be encoded
            path.append("id=" + "".join(f"%{byte:02X}" for byte in self.id))
        if self.slot_id is not None:
            path.append(f"slot-id={self.slot_id}")
        query = []
        if self.module_path is not None:
            query.append(f"module-path={quote(str(self.module_path), _QUERY_SAFE)}")
        if self.pin_source is not None:
            query.append(f"pin-source=file:{quote(str(self.pin_source), _QUERY_SAFE)}")
        return SCHEME + ";".join(path) + ("?" + "&".join(query) if query else "")


def find_pkcs11_uri(text: str) -> str | None:
    """Return the normalized URI of a text: without quotes, scheme in lower case. None for other texts.

    A preceding scheme, as OpenSSL's engine accepts it, is kept: `parse_pkcs11_uri` rejects it.
    """
    bare = text.strip(_QUOTES)
    named = _SCHEMES.match(bare)
    return None if named is None else f"{named['others']}{SCHEME}{bare[named.end() :]}"


def parse_pkcs11_uri(text: str) -> Pkcs11Uri:
    """Parse a URI; unused attributes are validated and dropped. Raise `UriInvalidError`."""
    text = find_pkcs11_uri(text) or text.strip()
    if not text.startswith(SCHEME) or text.startswith(2 * SCHEME):
        others, found, _ = text.rpartition(SCHEME)
        raise _invalid(text, f"leave out '{others}', which OpenSSL's engine takes" if found else _OTHER)
    if len(text) > MAX_URI_CHARS or not _PLAIN.fullmatch(text) or _BROKEN_ESCAPE.search(text):
        raise _invalid(text, "it is too long, or contains characters that need percent-encoding")
    path_text, _, query_text = text.removeprefix(SCHEME).partition("?")
    path = _attributes(path_text, ";", text)
    query = _attributes(query_text, "&", text)
    if "pin-value" in query or "pin-value" in path:
        raise PinInUriError(text=SCHEME + "…", uri=_joined(_without("pin-value", path_text, query_text)))
    if "pin-source" in path:
        path_part, query_part = _without("pin-source", path_text, query_text)
        source = next(piece for piece in path_text.split(";") if piece.startswith("pin-source="))
        raise PinSourceInPathError(text=text[:80], uri=_joined((path_part, f"{query_part}&{source}".strip("&"))))
    for name in path:
        if name not in _PATH_NAMES and not name.startswith("x-"):
            raise _invalid(text, f"unknown attribute '{name}'")
    texts = {name: _text(path, name, text) for name in _TEXTS}
    if (kind := texts["type"]) is not None and kind not in _TYPES:
        raise _invalid(text, f"unknown type '{kind}'")
    module_path = _text(query, "module-path", text)
    return Pkcs11Uri(
        **texts,
        id=path.get("id"),
        slot_id=_number(path, "slot-id", text),
        module_path=Path(module_path) if module_path else None,
        pin_source=_pin_source(query, text),
    )


def _without(name: str, path: str, query: str) -> tuple[str, str]:
    """Return a URI's path and query without an attribute."""
    parts = ((path, ";"), (query, "&"))
    left = (mark.join(one for one in part.split(mark) if not one.startswith(f"{name}=")) for part, mark in parts)
    return next(left), next(left)


def _joined(parts: tuple[str, str]) -> str:
    return (SCHEME + "?".join(parts)).removesuffix("?")


def _attributes(part: str, separator: str, whole: str) -> Mapping[str, bytes]:
    out: dict[str, bytes] = {}
    for piece in part.split(separator) if part else ():
        name, equals, value = piece.partition("=")
        if not equals or not name:
            raise _invalid(whole, "an attribute has no value")
        if name in out:
            raise _invalid(whole, f"'{name}' is repeated")
        out[name] = unquote_to_bytes(value)
    return out


def _text(attributes: Mapping[str, bytes], name: str, whole: str) -> str | None:
    raw = attributes.get(name)
    if raw is None:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise _invalid(whole, f"'{name}' is not UTF-8") from None


def _number(attributes: Mapping[str, bytes], name: str, whole: str) -> int | None:
    raw = attributes.get(name)
    if raw is None:
        return None
    if not raw.isdigit() or len(raw) > 20:  # noqa: PLR2004 (a 64-bit number)
        raise _invalid(whole, f"'{name}' is not a number")
    return int(raw)


def _pin_source(query: Mapping[str, bytes], whole: str) -> Path | None:
    """Return the PIN file; commands (`|`, RFC 7512) are rejected, as a key name must not execute code."""
    source = _text(query, "pin-source", whole)
    if source is None:
        return None
    path = source.removeprefix("file:")
    if path.startswith("//"):
        path = path.removeprefix("//").removeprefix("localhost")
    if not path.startswith("/"):
        raise _invalid(whole, "pin-source must be file: and an absolute path")
    return Path(path)


def _invalid(text: str, detail: str) -> UriInvalidError:
    return UriInvalidError(text=text[:80], detail=detail)
