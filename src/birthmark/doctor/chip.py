"""Inspection of a secure element: its library runs in a separate process, where it may crash or hang."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import msgspec

from birthmark.doctor.facts import ChipFacts, ChipSelection, FileFacts, ProbeExit, SoftHsmFacts
from birthmark.doctor.file_inspection import bytes_of, inspect_file, libraries, machine_of, text_of, this_machine
from birthmark.doctor.pkcs11_probe import ProbeAnswer, ProbeQuestion
from birthmark.doctor.setting_sources import SettingSource, SourcedSetting
from birthmark.secure_elements.atecc.emulated_pkcs11_token import is_atecc
from birthmark.text_file_encodings import format_trim_command, plain_text
from birthmark.untrusted_json_and_text import decode_json

PATIENCE_S = 10.0
_TOKENS = re.compile(r"^[ \t]*directories\.tokendir[ \t]*=(.+)$", re.MULTILINE)
_MAX_DETAIL_CHARS = 200
_MAX_PIN_FILE = 1024


def inspect_chip(
    selection: ChipSelection, question: ProbeQuestion, environment: Mapping[str, str], root: Path
) -> ChipFacts:
    """Test the library of `question` in a child process. Return the results and the state of its files."""
    path = Path(question.module)
    pin_path = None if selection.pin_file is None else Path(selection.pin_file.value)
    pin = None if pin_path is None else inspect_file(pin_path)
    found = ChipFacts(
        selection,
        question.module,
        inspect_file(Path(sys.executable))
        if is_atecc(path)
        else inspect_file(path),  # Microchip's library is a Python package
        built_for=this_machine() if is_atecc(path) else machine_of(path),
        here=this_machine(),
        others=tuple(one for one in libraries(root) if Path(one).resolve() != path.resolve()),
        pin=pin,
        trimming="" if pin_path is None else _trimming(pin_path),
        softhsm=_softhsm(environment, pin_path),
    )
    if not found.library.exists or found.built_for != found.here:
        return found
    if pin is not None and (not pin.exists or pin.reason or pin.mode & 0o077):  # own finding
        question = msgspec.structs.replace(question, pin_file=None)
    return _run_probe(found, question)


def _run_probe(facts: ChipFacts, question: ProbeQuestion) -> ChipFacts:
    """Run the library in the probe process."""
    with tempfile.TemporaryFile() as printed:  # a file has an end: a library may print endlessly
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "birthmark.doctor.pkcs11_probe"],
                input=msgspec.json.encode(question),
                stdout=subprocess.PIPE,
                stderr=printed,
                timeout=PATIENCE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return replace(facts, ending=ProbeExit.HUNG, detail=f"no response within {PATIENCE_S:g} s")
        printed.seek(max(0, printed.seek(0, os.SEEK_END) - _MAX_DETAIL_CHARS))
        last = printed.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
    try:
        answer = decode_json(done.stdout, ProbeAnswer)
    except msgspec.DecodeError:
        return replace(facts, ending=ProbeExit.CRASHED, detail=_how_it_ended(done.returncode, last))
    return replace(
        facts,
        tokens=answer.tokens,
        opened=answer.opened,
        keys=answer.keys,
        code=answer.code,
        cause=answer.cause,
        detail=answer.detail[:_MAX_DETAIL_CHARS],
    )


def _how_it_ended(code: int, last: str) -> str:
    if code < 0:
        return f"the process that used it was ended by {signal.Signals(-code).name}"
    return f"the process that used it ended with {code}: {last}"[:_MAX_DETAIL_CHARS]


def _trimming(path: Path) -> str:
    raw = bytes_of(path, _MAX_PIN_FILE)
    line = plain_text(raw).decode("utf-8", errors="replace").rstrip("\r\n")
    return format_trim_command(path, raw) if line != line.strip() and "\n" not in line.strip() else ""


def _softhsm(environment: Mapping[str, str], pin: Path | None) -> SoftHsmFacts | None:
    """Return SoftHSM's settings if a variable names them; other settings are SoftHSM's own defaults."""
    named = environment.get("SOFTHSM2_CONF")
    if not named:
        return None
    conf = Path(named)
    directories = _TOKENS.findall(text_of(conf))
    tokens: FileFacts | None = inspect_file(Path(directories[-1].strip())) if directories else None
    beside, own_pin = conf.parent / "tokens", conf.parent / "pin"
    of_pin = None if pin is None else pin.parent / "softhsm2.conf"
    return SoftHsmFacts(
        inspect_file(conf),
        SourcedSetting(SettingSource.VARIABLE, "SOFTHSM2_CONF", named),
        tokens,
        tokens_beside=str(beside.absolute()) if beside.is_dir() else "",
        conf_beside_pin=str(of_pin.absolute()) if of_pin is not None and of_pin.is_file() else "",
        pin_beside=str(own_pin.absolute()) if own_pin.is_file() else "",
    )
