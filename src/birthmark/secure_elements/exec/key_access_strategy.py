"""Selection of the key access method by program and host capabilities."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from birthmark.secure_elements.errors import EngineMissingError, ProgramUnsupportedError
from birthmark.secure_elements.exec.host_capabilities import HostCapabilities
from birthmark.secure_elements.exec.program_detection import Program, ProgramKind


class KeyAccess(StrEnum):
    """Key access methods of a token."""

    HOOK = "hook"
    ENGINE = "engine"
    PROVIDER = "provider"
    PROXY = "proxy"


# The first method that the machine supports. Hook and engine precede the provider: they also accept reference keys, and
# use the chip only for the one key, while the provider also uses it to verify the server's signatures.
_WAYS: Mapping[ProgramKind, tuple[KeyAccess, ...]] = {
    ProgramKind.PYTHON: (KeyAccess.HOOK, KeyAccess.PROVIDER, KeyAccess.PROXY),
    ProgramKind.NODE: (KeyAccess.HOOK, KeyAccess.PROXY),
    ProgramKind.CURL: (KeyAccess.ENGINE, KeyAccess.PROVIDER, KeyAccess.PROXY),
    ProgramKind.MOSQUITTO: (KeyAccess.PROVIDER, KeyAccess.PROXY),
    ProgramKind.OPENSSL: (KeyAccess.ENGINE, KeyAccess.PROVIDER, KeyAccess.PROXY),
    ProgramKind.LINKED: (KeyAccess.PROVIDER, KeyAccess.PROXY),
    ProgramKind.LAUNCHER: (KeyAccess.HOOK, KeyAccess.PROVIDER, KeyAccess.PROXY),
    ProgramKind.OTHER: (KeyAccess.PROXY,),
}
_NEEDS: Mapping[KeyAccess, str] = {
    KeyAccess.HOOK: "OpenSSL's PKCS#11 engine",
    KeyAccess.ENGINE: "OpenSSL's PKCS#11 engine",
    KeyAccess.PROVIDER: "pkcs11-provider",
    KeyAccess.PROXY: "OpenSSL's PKCS#11 engine for the proxy itself",
}


@dataclass(frozen=True, slots=True)
class KeyAccessChoice:
    """The selected method, and the reasons against preceding ones."""

    way: KeyAccess
    reason: str


def choose(
    program: Program, machine: HostCapabilities, command: Sequence[str], how: KeyAccess | None = None
) -> KeyAccessChoice:
    """Return the method for this program on this host, or the forced one.

    Raise `ProgramUnsupportedError` for a method that the program cannot use, `EngineMissingError` if only the host
    lacks it.
    """
    ways = _WAYS[program.kind]
    if how is not None and how not in ways:
        raise ProgramUnsupportedError(
            program=program.name,
            detail=f"it is {program.kind.value}, which the method {how} does not support",
            advice="Use the automatic choice",
            command=_typed(command),
        )
    if program.isolating_flag is not None and how in (None, KeyAccess.HOOK):
        raise _isolated(program, command)
    passed: list[str] = []
    for way in ways if how is None else (how,):
        missing = _missing(way, program, machine)
        if missing is None:
            return KeyAccessChoice(way, "; ".join([*passed, _why(way, program, how)]))
        passed.append(f"not by the {way}: {missing}")
    if how is KeyAccess.PROVIDER:
        raise ProgramUnsupportedError(
            program=program.name,
            detail="; ".join(passed),
            advice="Use the automatic choice",
            command=_typed(command),
        )
    raise EngineMissingError(looked_in="the engine directories of OpenSSL 3 under /usr/lib and /usr/lib64")


def _missing(access: KeyAccess, program: Program, machine: HostCapabilities) -> str | None:
    """Return the missing requirement of this method, or None."""
    is_there = machine.provider if access is KeyAccess.PROVIDER else machine.engine
    if is_there is None:
        return f"{_NEEDS[access]} is not installed"
    if access is KeyAccess.PROXY or program.kind in (ProgramKind.NODE, ProgramKind.LAUNCHER):
        return None
    return None if program.links_openssl else "its OpenSSL is not the system's"


def _why(access: KeyAccess, program: Program, how: KeyAccess | None) -> str:
    if how is not None:
        return f"by the {access}, as set by --how"
    return f"by the {access}, because it is {program.kind.value}"


def _isolated(program: Program, command: Sequence[str]) -> ProgramUnsupportedError:
    flag = str(program.isolating_flag)
    if flag not in command[1:]:  # it is in the script's first line
        return ProgramUnsupportedError(
            program=program.name,
            detail=f"the option {flag} in its first line makes Python ignore the required variables",
            advice="Use the interpreter without it",
            command=_typed(["python3", program.path, *command[1:]]),
        )
    place = list(command).index(flag, 1)
    return ProgramUnsupportedError(
        program=program.name,
        detail=f"the option {flag} makes Python ignore the required variables",
        advice=f"Omit {flag}",
        command=_typed([*command[:place], *command[place + 1 :]]),
    )


def _typed(command: Sequence[str]) -> str:
    return shlex.join(["birthmark", "chip", "exec", "--", *command])
