"""URIs of the configuration: `file:` paths and `pkcs11:` keys, as aziot reads them.

aziot's PKCS#11 URIs may carry the PIN (`pin-value`), which ours never do: it is taken out here and hidden. `pin-source`
is accepted too, so that the PIN need not stand in the configuration.
"""

from pathlib import Path
from urllib.parse import unquote

from birthmark.agent.config.model import KeyLocation, TokenLocation
from birthmark.agent.config.reader import Table
from birthmark.errors import BirthmarkError
from birthmark.keys.pin import Pin
from birthmark.keys.uri import SCHEME, parse_pkcs11_uri

_FILE = "file:"
_PIN = "pin-value="


def file_of(table: Table, name: str, value: object, *, in_list: bool = False) -> Path:
    """Return the path of a `file:` URI."""
    if isinstance(value, str) and value.startswith(_FILE):
        path = unquote(value.removeprefix(_FILE))
        if path.startswith("//"):
            path = "/" + path.removeprefix("//").partition("/")[2]
        if path.startswith("/") and "\0" not in path and path != "/":
            return Path(path)
    uri = f"file://{value}" if isinstance(value, str) and value.startswith("/") else "file:///path/to/file"
    accepted = f'`{name} = ["{uri}"]`' if in_list else f'`{name} = "{uri}"`'
    raise table.error(name, "must be a file URI with an absolute path", accepted)


def take_file(table: Table, name: str) -> Path | None:
    value = table.take(name)
    return None if value is None else file_of(table, name, value)


def key_of(table: Table, name: str, value: object) -> KeyLocation:
    """Return where a private key is."""
    if isinstance(value, str) and value.startswith(SCHEME):
        return token_of(table, name, value)
    if isinstance(value, str) and value.startswith(_FILE):
        return file_of(table, name, value)
    raise table.error(
        name,
        "is of an unrecognized scheme",
        f'`{name} = "file:///path/to/key.pem"` or `{name} = "pkcs11:token=LABEL;object=KEY?pin-source=file:/path"`',
    )


def token_of(table: Table, name: str, value: str) -> TokenLocation:
    """Return the token and object of a `pkcs11:` URI, the PIN apart."""
    table.source.token_uris.append((*table.path, name))
    accepted = f'`{name} = "pkcs11:token=LABEL;object=KEY?pin-source=file:/path/of/a/0600/file"`'
    path, _, query = value.partition("?")
    pieces = query.split("&") if query else []
    pins = [unquote(piece.removeprefix(_PIN)) for piece in pieces if piece.startswith(_PIN)]
    rest = "&".join(piece for piece in pieces if not piece.startswith(_PIN))
    if len(pins) > 1 or any("?" in piece for piece in pieces):
        raise table.error(name, "is no PKCS#11 URI: the PIN is there twice", accepted)
    try:
        uri = parse_pkcs11_uri(path + (f"?{rest}" if rest else ""))
    except BirthmarkError as error:
        detail = error.facts.get("detail", "it cannot be read")
        raise table.error(name, f"is no PKCS#11 URI: {detail}", accepted) from error
    if uri.slot_id is not None and uri.token is not None:
        table.source.warn((*table.path, name), "has slot-id and token: the token is ignored, as aziot does")
    return TokenLocation(uri, Pin(pins[0]) if pins else None)
