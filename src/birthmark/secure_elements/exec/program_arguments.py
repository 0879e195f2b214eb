"""Programs with known options, and their command lines with the secure element's key.

mosquitto's clients have `--keyform engine` but require a file of that name before they use it (2.0 and 2.1). They
therefore use the proxy, with their host, port and trust options redirected to it.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from birthmark.keys.errors import PinFileError
from birthmark.keys.pkcs11_uri import Pkcs11Uri, parse_pkcs11_uri
from birthmark.keys.pkcs11_uri_files import uri_in
from birthmark.keys.se050_reference_keys import MAX_KEY_FILE_BYTES, parse_reference_key
from birthmark.secure_elements.element_session import Element
from birthmark.secure_elements.exec.program_detection import ProgramKind


def named_key(path: str, element: Element) -> Pkcs11Uri | None:
    """Return the key of this token that a file names; None for an ordinary file or none."""
    try:
        if not Path(path).is_file():
            return None
        with Path(path).open("rb") as file:
            content = file.read(MAX_KEY_FILE_BYTES + 1)
    except (OSError, ValueError):  # not a file name, or a file that the program cannot read either
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
    """Store bytes in a memory file, readable by this process and its children but not by other users.

    A program that replaces this process can read it, too.
    """
    try:
        descriptor = os.memfd_create(f"birthmark-{name}", 0)
    except OSError as error:
        raise PinFileError(path="(memory)", detail=f"cannot be stored in memory, like the {name}") from error
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
    # By PID, because the program's children do not inherit the descriptor.
    return Path(f"/proc/{os.getpid()}/fd/{descriptor}")


@dataclass(frozen=True, slots=True)
class _Options:
    """Key options of a program: those whose value may name a key, and those that select an engine."""

    keys: tuple[str, ...]
    engine: tuple[str, ...]
    certificates: tuple[str, ...] = ()
    """Certificate options; without any of them and a key, the element's key and certificate are added."""
    has_subcommand: bool = False


_OPTIONS: Mapping[ProgramKind, _Options] = {
    ProgramKind.CURL: _Options(("--key",), ("--engine", "pkcs11", "--key-type", "ENG"), ("--cert", "-E")),
    ProgramKind.OPENSSL: _Options(
        ("-key", "-inkey", "-sign"), ("-engine", "pkcs11", "-keyform", "engine"), has_subcommand=True
    ),
}


_LONG = {"-h": "--host", "-p": "--port"}
_WITH_VALUE = ("-t", "--topic", "-m", "--message", "-f", "--file", "-u", "--username", "-P", "--pw", "-i", "--id")
_TAKEN = ("--host", "--port", "--cafile", "--cert", "--key")


def with_engine(
    kind: ProgramKind,
    arguments: Sequence[str],
    element: Element,
    as_text: Callable[[Pkcs11Uri], str],
    key: str | None = None,
) -> tuple[str, ...]:
    """Return the arguments with each file that names an element's key replaced by the key's URI.

    A program without key and certificate options receives `key`, by default the element's identity. An ordinary key
    file stays unchanged.
    """
    options = _OPTIONS[kind]
    given = list(arguments)
    places = [at for at, text in enumerate(given[:-1]) if text in options.keys]
    found = {at + 1: uri for at in places if (uri := named_key(given[at + 1], element)) is not None}
    for at, uri in found.items():
        given[at] = as_text(uri)
    if not places and options.certificates:
        given += ["--key", as_text(element.key(key).uri)]
        if not any(text in options.certificates for text in arguments):
            given += ["--cert", str(_certificate(element, key))]
    elif not found:
        return tuple(arguments)
    start = 1 if options.has_subcommand else 0
    return (*given[:start], *options.engine, *given[start:])


def with_uri_files(values: Sequence[str], element: Element, as_file: Callable[[Pkcs11Uri], Path]) -> tuple[str, ...]:
    """Return values with each file that names an element's key replaced by a file for pkcs11-provider."""
    found = [named_key(value, element) for value in values]
    return tuple(value if uri is None else str(as_file(uri)) for value, uri in zip(values, found, strict=True))


def by_proxy(kind: ProgramKind, arguments: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...], str | None]:
    """Return the arguments, their HOST:PORT targets and trusted roots, for programs with known options."""
    if kind is not ProgramKind.MOSQUITTO or any("${BIRTHMARK_PROXY_" in text for text in arguments):
        return tuple(arguments), (), None
    given = dict.fromkeys(("--host", "--port", "--cafile"), "")
    kept, values = list[str](), iter(arguments)
    for text in values:
        name = _LONG.get(text, text)
        if name in _TAKEN:
            value = next(values, "")
            if name in given:
                given[name] = value
        else:
            kept.append(text)
            if text in _WITH_VALUE:  # in any form
                kept.append(next(values, ""))
    target = f"{given['--host'] or 'localhost'}:{given['--port'] or '8883'}"
    turned = (
        "--host",
        "${BIRTHMARK_PROXY_HOST}",
        "--port",
        "${BIRTHMARK_PROXY_PORT}",
        "--cafile",
        "${BIRTHMARK_PROXY_CA}",
    )
    return (*turned, *kept), (target,), given["--cafile"] or None


def _certificate(element: Element, key: str | None) -> Path:
    chain = element.chain(key)
    return in_memory("".join(one.pem() for one in chain).encode(), "certificate")
