"""Run a program that only takes key files with the chip's key (`birthmark element exec -- PROGRAM`).

The program stays as it is. Its environment gets a hook directory in front of PYTHONPATH (`hook/sitecustomize.py`),
which maps reference keys and `pkcs11:` files to the token. The PIN goes by the path of its file, never as text.
"""

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from birthmark.elements.element import Element
from birthmark.elements.errors import EngineMissingError, ProgramMissingError, ProgramUnsupportedError
from birthmark.keys.errors import PinFileError
from birthmark.keys.labels import object_id_of
from birthmark.keys.pin import Pin

HOOK = Path(__file__).parent / "hook"
_ENGINES = (
    "usr/lib/*/engines-3/pkcs11.so",  # Debian: one directory per architecture
    "usr/lib64/engines-3/pkcs11.so",
    "usr/lib/engines-3/pkcs11.so",
)
# Programs people try first that are not Python: each has its own way to a token key.
_MOSQUITTO = ("--tls-engine", "pkcs11", "--tls-keyform", "engine", "--key")
_OWN_WAY: Mapping[str, tuple[str, ...]] = {
    "curl": ("--engine", "pkcs11", "--key-type", "ENG", "--key"),
    "openssl": ("-engine", "pkcs11", "-keyform", "engine", "-key"),
    "mosquitto_pub": _MOSQUITTO,
    "mosquitto_sub": _MOSQUITTO,
    "node": (),
}
_ISOLATED = frozenset("IES")


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be run, and what is set for it on top of the environment."""

    program: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]

    def explain(self) -> str:
        """Return the settings for people, one per line."""
        lines = [f"{name}={value}" for name, value in sorted(self.environment.items())]
        return "\n".join([*lines, f"run: {self.program} {' '.join(self.arguments)}".rstrip()])


def find_engine(root: Path = Path("/")) -> Path:
    """Return OpenSSL's PKCS#11 engine. Raise `EngineMissingError`, which names the package."""
    for pattern in _ENGINES:
        for path in sorted(root.glob(pattern)):
            return path
    raise EngineMissingError(looked_in=", ".join("/" + pattern.rsplit("/", 1)[0] for pattern in _ENGINES))


def plan(
    command: Sequence[str], element: Element, *, pin: Pin | None, environment: Mapping[str, str], explain: bool = False
) -> Plan:
    """Return what to run. The open element proves that token and PIN work, and tells the labels of its keys."""
    program = _program(command, element, pin, environment)
    labels = [item.label for item in element.objects() if item.kind == "private key"]
    known = [f"{object_id:08X}={label}" for label in labels if (object_id := object_id_of(label)) is not None]
    settings = {
        "BIRTHMARK_EXEC_MODULE": str(element.token.module.absolute()),
        "BIRTHMARK_EXEC_ENGINE": str(find_engine()),
        "BIRTHMARK_EXEC_TOKEN": element.info.label,
        "BIRTHMARK_EXEC_KEYS": ",".join(known),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HOOK), environment.get("PYTHONPATH", "")])),
    }
    if pin is not None:
        settings["BIRTHMARK_EXEC_PIN_FILE"] = str(pin.path or _in_memory(pin))
    if explain:
        settings["BIRTHMARK_EXEC_EXPLAIN"] = "1"
    return Plan(program, tuple(command[1:]), settings)


def run(planned: Plan, environment: Mapping[str, str]) -> None:
    """Replace this process by the program. Close the element before."""
    os.execve(planned.program, [planned.program, *planned.arguments], {**environment, **planned.environment})  # noqa: S606 (that is the job)


def _program(command: Sequence[str], element: Element, pin: Pin | None, environment: Mapping[str, str]) -> str:
    if not command:
        raise ProgramMissingError(program="", command="birthmark element exec -- python3")
    found = shutil.which(command[0], path=environment.get("PATH"))
    if found is None:
        by_python = shlex.join(["birthmark", "element", "exec", "--", "python3", *command])
        raise ProgramMissingError(program=command[0], command=by_python)
    name = Path(found).name
    if name in _OWN_WAY:
        raise _not_python(command, name, element, pin)
    if name.startswith("python") and (flag := _isolating_flag(command[1:])):
        place = list(command).index(flag, 1)
        raise ProgramUnsupportedError(
            program=name,
            detail=f"the option {flag} makes Python ignore what is set for it",
            advice=f"Leave out {flag}",
            command=shlex.join(["birthmark", "element", "exec", "--", *command[:place], *command[place + 1 :]]),
        )
    return found


def _not_python(command: Sequence[str], name: str, element: Element, pin: Pin | None) -> ProgramUnsupportedError:
    """Tell how this program takes a chip's key by itself, for Node that it does not."""
    if options := _OWN_WAY[name]:
        path = None if pin is None else pin.path
        uri = str(replace(element.key().uri, pin_source=None if path is None else Path("/dev/stdin")))
        advice = "Let it take the key in its own way"
        module = shlex.quote(str(element.token.module.absolute()))
        own_way = f"PKCS11_MODULE_PATH={module} {shlex.join([*command, *options, uri])}"
        if path is not None:  # OpenSSL's engine takes a line's end for a part of the PIN
            own_way = f"tr -d '\\n' < {shlex.quote(str(path))} | {own_way}"
    else:
        advice = "It brings its own OpenSSL. Use the vendor's Python SDK, or Birthmark's own client"
        own_way = "birthmark device send hello --element"
    return ProgramUnsupportedError(program=name, detail="it is not a Python program", advice=advice, command=own_way)


def _isolating_flag(arguments: Sequence[str]) -> str | None:
    for argument in arguments:
        if not argument.startswith("-") or argument in ("-", "--") or argument[:2] in ("-c", "-m"):
            return None
        if not argument.startswith("--") and _ISOLATED & set(argument[1:]):
            return argument
    return None


def _in_memory(pin: Pin) -> Path:
    """Keep a PIN that came from a prompt in memory that only the program inherits."""
    try:
        descriptor = os.memfd_create("birthmark-pin", 0)
    except OSError as error:
        path, detail = "(memory)", "cannot be kept in memory"
        raise PinFileError(path=path, detail=detail) from error
    os.write(descriptor, pin.reveal().encode())
    return Path(f"/proc/self/fd/{descriptor}")
