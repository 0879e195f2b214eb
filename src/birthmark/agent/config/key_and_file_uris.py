"""URIs in the configuration: `file:` paths and `pkcs11:` keys, as in aziot.

aziot's PKCS#11 URIs may contain the PIN (`pin-value`), unlike Birthmark's own; the parser extracts and hides it.
`pin-source` is also accepted, which keeps the PIN out of the configuration.
"""

from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from birthmark.agent.config.model import KeyLocation, PreloadedIdentity, TokenLocation
from birthmark.agent.config.toml_tables import MistakeError, Read, Table, text_like
from birthmark.errors import BirthmarkError
from birthmark.keys.pin import Pin
from birthmark.keys.pkcs11_uri import find_pkcs11_uri, parse_pkcs11_uri

L = TypeVar("L", TokenLocation, KeyLocation)

_FILE = "file:"
_PIN = "pin-value="
_LOCAL = "file:///path/to/file"
_TOGETHER = "is missing: certificate and key belong together"
_KEY_URI = '`{name} = "file:///path/to/key.pem"` or `{name} = "pkcs11:token=LABEL;object=KEY?pin-source=file:/path"`'
_PKCS11 = '`{name} = "pkcs11:token=LABEL;object=KEY?pin-source=file:/path/of/a/0600/file"`'


def file_of(value: object, form: str = '"{uri}"') -> Path:
    """Return the path of a `file:` URI; `form` is the accepted form for errors."""
    if isinstance(value, str) and value.startswith(_FILE):
        path = unquote(value.removeprefix(_FILE))
        if path.startswith("//"):
            machine, _, rest = path.removeprefix("//").partition("/")
            path = f"/{rest}"
            if machine not in {"", "localhost"} or rest.startswith("/"):
                other = machine or rest.strip("/").partition("/")[0]
                raise MistakeError(
                    f"refers to another machine, {other}", f"`{{name}} = {form.replace('{uri}', _LOCAL)}`"
                )
        if path.startswith("/") and "\0" not in path and path != "/":
            return Path(path)
    uri = f"file://{value}" if isinstance(value, str) and value.startswith("/") else _LOCAL
    raise MistakeError("must be a file URI with an absolute path", f"`{{name}} = {form.replace('{uri}', uri)}`")


def files_of(value: object) -> tuple[Path, ...]:
    """Return the paths of a list of `file:` URIs."""
    if not isinstance(value, list) or not value:
        uri = "file:///etc/ca.pem"
        if isinstance(value, str) and value.startswith(("/", _FILE)):  # other values may hold a secret
            uri = f"file://{value.removeprefix('file://')}"
        raise MistakeError("must be a list of file URIs", f'`{{name}} = ["{uri}"]`')
    return tuple(file_of(one, '["{uri}"]') for one in value)


def key_of(value: object) -> KeyLocation:
    """Return the location of a private key."""
    if isinstance(value, str) and find_pkcs11_uri(value) is not None:
        return token_of(value)
    if isinstance(value, str) and value.startswith(_FILE):
        return file_of(value)
    raise MistakeError("is of an unrecognized scheme", _KEY_URI)


def token_of(value: object) -> TokenLocation:
    """Return the token and object of a `pkcs11:` URI; the PIN is separate."""
    if (text := find_pkcs11_uri(text_like(_PKCS11)(value))) is None:
        raise MistakeError("must be a pkcs11: URI", '`{name} = "pkcs11:token=LABEL"`')
    path, _, query = text.partition("?")
    pieces = query.split("&") if query else []
    pins = [unquote(piece.removeprefix(_PIN)) for piece in pieces if piece.startswith(_PIN)]
    rest = "&".join(piece for piece in pieces if not piece.startswith(_PIN))
    if len(pins) > 1 or any("?" in piece for piece in pieces):
        raise MistakeError("is not a PKCS#11 URI: it contains the PIN twice", _PKCS11)
    try:
        uri = parse_pkcs11_uri(path + (f"?{rest}" if rest else ""))
    except BirthmarkError as error:
        raise MistakeError(
            f"is not a PKCS#11 URI: {error.facts.get('detail', 'it cannot be read')}", _PKCS11
        ) from error
    return TokenLocation(uri, Pin(pins[0]) if pins else None)


def take_key(table: Table, name: str, read: Read[L]) -> L | None:
    """Return a location read by `key_of` or `token_of`, and record the token's warnings and errors."""
    found = table.take(name, read)
    if isinstance(found, TokenLocation):
        table.source.token_keys.append((table, name))
        if found.uri.slot_id is not None and found.uri.token is not None:
            table.warn(name, "has slot-id and token: the token is ignored, as aziot does")
    return found


def take_pair(
    table: Table, certificate: str, key: str, detail: str = _TOGETHER, example: str = ""
) -> PreloadedIdentity | None:
    """Return a certificate with its key; None if both are missing."""
    found = table.take(certificate, file_of), take_key(table, key, key_of)
    if certificate not in table and key not in table:
        return None
    for name, value in zip((certificate, key), found, strict=True):
        if value is None:
            table.wrong(name, detail, example or f'`{name} = "file:///path"`')
    return PreloadedIdentity(found[0] or Path(), found[1] or Path())
