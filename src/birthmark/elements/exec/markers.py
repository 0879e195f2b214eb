"""Files that name a chip's key: reference keys, `pkcs11:` URIs, URI PEMs. And files that exist in memory alone."""

import os
from dataclasses import replace
from pathlib import Path

from birthmark.elements.element import Element
from birthmark.keys.errors import PinFileError
from birthmark.keys.handles import uri_in
from birthmark.keys.reference import MAX_KEY_FILE_BYTES, parse_reference_key
from birthmark.keys.uri import Pkcs11Uri, parse_pkcs11_uri


def named_key(path: str, element: Element) -> Pkcs11Uri | None:
    """Return the key of this token that a file names, None for an ordinary file or none at all."""
    try:
        if not Path(path).is_file():
            return None
        with Path(path).open("rb") as file:
            content = file.read(MAX_KEY_FILE_BYTES + 1)
    except (OSError, ValueError):  # no name of a file, or of one that the program may not read either
        return None
    if len(content) > MAX_KEY_FILE_BYTES:
        return None
    object_id = parse_reference_key(content)
    if object_id is not None:
        return element.key(f"0x{object_id:08X}").uri
    text = uri_in(content)
    if text is None:
        return None
    uri = parse_pkcs11_uri(text)
    has_token = uri.token is not None or uri.serial is not None
    token = uri.token if has_token else element.info.label
    return replace(uri, token=token, type="private", module_path=None, pin_source=None)


def in_memory(content: bytes, name: str) -> Path:
    """Keep bytes where this process, what replaces it and its children read them, and nobody of another user."""
    try:
        descriptor = os.memfd_create(f"birthmark-{name}", 0)
    except OSError as error:
        raise PinFileError(path="(memory)", detail=f"cannot be kept in memory, as the {name} is") from error
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
    # By number, as the program's own children do not inherit it.
    return Path(f"/proc/{os.getpid()}/fd/{descriptor}")
