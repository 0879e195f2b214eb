"""Every command that takes a file answers for a file in any form that Windows writes, and changes none."""

import codecs
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, pkcs7, pkcs12
from typer.testing import CliRunner

from birthmark.cli.app import app
from support.pki.pki_builders import a_device

DEVICE = a_device()
PEM = DEVICE.certificate.pem()
JSON = '{"site": "Köln"}\n'
FORMS: dict[str, Callable[[str], bytes]] = {
    "UTF-8 with a mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "UTF-16 LE": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "UTF-16 BE": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "UTF-16 LE without a mark": lambda text: text.encode("utf-16-le"),
    "UTF-16 BE without a mark": lambda text: text.encode("utf-16-be"),
    "CP1252": lambda text: f"Größe {text}".encode("cp1252"),
    "half a character of UTF-16": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le")[:-1],
}
PFX = pkcs12.serialize_key_and_certificates(
    None,
    DEVICE.private_key,
    DEVICE.certificate.parsed,
    None,
    NoEncryption(),
)
CONTENTS = {
    f"{kind} in {form}": write(text) for kind, text in (("PEM", PEM), ("JSON", JSON)) for form, write in FORMS.items()
} | {
    "DER": DEVICE.certificate.der,
    "PFX": PFX,
    "P7B in PEM": pkcs7.serialize_certificates([DEVICE.certificate.parsed], Encoding.PEM),
    "P7B in DER": pkcs7.serialize_certificates([DEVICE.certificate.parsed], Encoding.DER),
    "nothing": b"",
}
READ = {
    *("--ca-cert", "--ca-file", "--ca-key", "--ca-passphrase-file", "--cert", "--check", "--config", "--current-file"),
    *(
        "--chip-ca",
        "--content",
        "--head",
        "--key-of",
        "--manifest",
        "--passphrase-file",
        "--password-file",
        "--pin-file",
    ),
    *("--policy", "--replay", "--roots", "--settings", "--signer", "--station", "--template", "--token-file"),
    *("--trust-root", "csr", "file", "files", "invitation", "scenario"),
}
WRITTEN = {"--journal", "--out", "--out-dir", "--report", "--secret-file"}
DIRECTORIES = {"--data", "--dir", "--identities", "--root", "directory", "old"}
OTHERS = {"--module": "a library, which the token's opening tells", "--symmetric-key": "a flag of the same name"}
STARTS = {
    "birthmark serve": "a server",
    "birthmark test-server": "a server",
    "birthmark agent run": "an agent",
    "birthmark swarm init": "writes the file",
}


def commands(command: Any, path: tuple[str, ...] = ("birthmark",)) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "list_commands"):
        yield " ".join(path), command
        return
    context = typer.Context(command, info_name=path[-1])
    for name in command.list_commands(context):
        yield from commands(command.get_command(context, name), (*path, name))


def takes_path(parameter: Any) -> bool:
    return "path" in type(parameter.type).__name__.lower()


EVERY = [
    (path, command, one)
    for path, command in commands(typer.main.get_command(app))
    for one in command.params
    if takes_path(one)
]
READING = [
    pytest.param(path, command, one, id=f"{path} {one.opts[0]}")
    for path, command, one in EVERY
    if one.opts[0] in READ and path not in STARTS
]


def line_for(path: str, command: Any, parameter: Any, file: Path) -> list[str]:
    """Return a line with this file, and something for what else is required."""
    required = (one for one in command.params if one is parameter or one.required)
    values = ((one, str(file) if one is parameter else "other" if takes_path(one) else "1") for one in required)
    words = ([one.opts[0], value] if one.param_type_name == "option" else [value] for one, value in values)
    return [*path.split()[1:], *itertools.chain(*words)]


def test_every_parameter_with_a_path_is_classified() -> None:
    assert {one.opts[0] for _, _, one in EVERY} == READ | WRITTEN | DIRECTORIES | OTHERS.keys()


@pytest.mark.parametrize(("path", "command", "parameter"), READING)
def test_a_file_in_another_form_is_read_or_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, command: Any, parameter: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BIRTHMARK_DATA", str(tmp_path / "none"))
    (file := tmp_path / "given").touch(0o600)
    for form, content in CONTENTS.items():
        file.write_bytes(content)
        done = CliRunner().invoke(app, line_for(path, command, parameter, file))
        assert done.exception is None or isinstance(done.exception, SystemExit), (form, done.exception)
        assert not {word for word in ("Traceback", "codec can't", "Error:") if word in done.output.replace("│", "")}, (
            form,
            done.output,
        )
        assert file.read_bytes() == content, form
