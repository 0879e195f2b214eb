"""A chip's library, its token, PIN and key."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from birthmark.doctor.facts import ChipFacts, KeyFacts, ProbeExit, SoftHsmFacts
from birthmark.doctor.model import DoctorFinding, FindingSeverity, Topic
from birthmark.keys.se050_labels import is_same_label, object_id_of
from birthmark.text_files import trimmed

_EXPOSED = 0o077
_SIMULATE = 'eval "$(birthmark chip simulate chip)"'
NXP_LIBRARY = "libsss_pkcs11"
_MICROCHIP = "cryptoauthlib"
_ADDRESS = (
    "The chip does not respond. Check that it is on the bus: `i2cdetect -y {bus}`, which uses 7-bit "
    "notation (0x35 is 0x6A here). Stop other processes that use it. "
)
_ENA = "An SE050 in deep power-down does not respond: set its pin ENA high, and stop other programs that use the chip. "
_INTO = "Type the PIN, Enter and Ctrl-D after this command"


def findings(seen: ChipFacts) -> Iterator[DoctorFinding]:
    """Return what is wrong with a chip, the cause before what follows from it; else what is right."""
    found = [*_store(seen), *_library(seen), *_pin_file(seen), *_refused(seen), *_key(seen)]
    yield from found
    if not found and seen.opened:
        labels = ", ".join(f"'{one.label}'" for one in seen.keys) or "no private key"
        yield DoctorFinding(
            "doctor.chip", Topic.TOKEN, FindingSeverity.OK, f"{seen.module}: token '{seen.opened}' opens; {labels}"
        )


def not_named(libraries: Sequence[str]) -> Iterator[DoctorFinding]:
    """Return that a chip's library is here and nobody says so."""
    if libraries:
        yield DoctorFinding(
            "doctor.library_not_named",
            Topic.LIBRARY,
            FindingSeverity.WARNING,
            f"{', '.join(libraries)}; neither --module nor BIRTHMARK_PKCS11_MODULE refers to it",
            cause="This machine has a chip's library, but commands use SoftHSM unless a library is specified.",
            command=f"export BIRTHMARK_PKCS11_MODULE={shlex.quote(libraries[0])}",
            advice="Name it",
        )


# ---- SoftHSM's settings


def _store(seen: ChipFacts) -> Iterator[DoctorFinding]:
    hsm = seen.softhsm
    if hsm is None or hsm.setting is None:
        return
    fault = partial(DoctorFinding, topic=Topic.STORE, severity=FindingSeverity.FAULT)
    if not hsm.conf.exists:
        other = hsm.conf_beside_pin
        yield fault(
            "doctor.softhsm_settings_missing",
            seen=f"{hsm.setting}: {hsm.conf.reason or 'no such file'}",
            cause="SoftHSM's settings are not at the path in SOFTHSM2_CONF, so it has no tokens.",
            command=hsm.setting.to(other) if other else _SIMULATE,
            advice="Use the settings next to the PIN file"
            if other
            else ("Set the correct file, or create a simulated secure element"),
        )
    elif hsm.tokens is None or not hsm.tokens.exists:
        yield _moved(hsm)


def _moved(hsm: SoftHsmFacts) -> DoctorFinding:
    named = "no directory" if hsm.tokens is None else hsm.tokens.path
    line = f"/^directories.tokendir/c directories.tokendir = {hsm.tokens_beside}"
    return DoctorFinding(
        "doctor.softhsm_tokens_missing",
        Topic.STORE,
        FindingSeverity.FAULT,
        f"directories.tokendir of {hsm.conf.path}: {named} does not exist",
        cause="The directory of SoftHSM's tokens was moved or deleted.",
        command=shlex.join(["sed", "-i", line, hsm.conf.path]) if hsm.tokens_beside else _SIMULATE,
        advice="Use the directory next to the settings" if hsm.tokens_beside else ("Create a simulated secure element"),
    )


# ---- the library


def _library(seen: ChipFacts) -> Iterator[DoctorFinding]:
    """Return why the library cannot be used, if so."""
    if not seen.library.exists or seen.library.is_directory:
        what = "a directory" if seen.library.is_directory else seen.library.reason or "no such file"
        yield _unusable(seen, "keys.module_missing", what, f"The PKCS#11 library {seen.module} does not exist.")
    elif seen.built_for and seen.built_for != seen.here:
        what = f"built for {seen.built_for}, this is {seen.here}"
        cause = "The library is for another machine architecture and cannot be loaded."
        yield _unusable(seen, "doctor.library_foreign", what, cause)
    elif seen.ending is ProbeExit.CRASHED:
        cause = "The library crashes. Usually, its settings are wrong, or the chip does not match them."
        yield _unusable(seen, "doctor.library_crashes", seen.detail, cause)
    elif seen.ending is ProbeExit.HUNG:
        cause = "The library does not respond: another process uses the chip, or the chip does not respond."
        yield _unusable(seen, "doctor.library_hangs", seen.detail, cause)
    elif seen.code in {"keys.module_broken", "keys.token_failed"} and not seen.tokens and not any(_store(seen)):
        yield _unusable(seen, "keys.module_broken", seen.detail, seen.cause)


def _unusable(seen: ChipFacts, code: str, what: str, cause: str) -> DoctorFinding:
    command, advice = _SIMULATE, ("Install the chip's own library and set its path. Or use a simulated secure element")
    if silent := _of_silence(seen):
        advice = f"{silent}Or use a simulated secure element"
    elif seen.others and seen.asked.module is not None:
        command, advice = seen.asked.module.to(seen.others[0]), "Use a library that this machine has"
    where = f"{seen.asked.module or seen.module}: {what}"
    return DoctorFinding(code, Topic.LIBRARY, FindingSeverity.FAULT, where, cause=cause, command=command, advice=advice)


def _of_silence(seen: ChipFacts) -> str:
    """Return what a chip may want whose library is in order and does not reach it; empty where that is not so."""
    is_silent = seen.ending is ProbeExit.HUNG or (seen.ending is ProbeExit.FINE and bool(seen.code) and not seen.tokens)
    if is_silent and seen.module.startswith(_MICROCHIP):
        bus = seen.module.rpartition(",")[2]
        return _ADDRESS.format(bus=bus if bus.isdecimal() else 1)
    return _ENA if is_silent and NXP_LIBRARY in seen.module else ""


# ---- the PIN's file


def _pin_file(seen: ChipFacts) -> Iterator[DoctorFinding]:
    file, asked = seen.pin, seen.asked.pin_file
    if file is None or asked is None:
        return
    fault = partial(DoctorFinding, topic=Topic.PIN_FILE, severity=FindingSeverity.FAULT)
    beside = "" if seen.softhsm is None else seen.softhsm.pin_beside
    if not file.exists or file.reason:
        yield fault(
            "keys.pin_file_missing",
            seen=f"{asked}: {file.reason or 'no such file'}",
            cause="The PIN file cannot be read.",
            command=asked.to(beside) if beside else _writing(file.path),
            advice="Use the PIN file next to the simulated secure element's settings" if beside else _INTO,
        )
    elif file.mode & _EXPOSED:
        yield fault(
            "keys.pin_file",
            seen=f"{asked}: mode {file.mode:04o}",
            cause="Other users can read the PIN, so it is not used.",
            command=shlex.join(["chmod", "0600", file.path]),
            advice="Close it",
        )
    elif seen.trimming and seen.code == "keys.pin_file":
        yield fault(
            "doctor.pin_has_spaces",
            seen=f"{asked}: the line starts or ends with white space, so the PIN was not tried",
            cause="White space counts as part of the PIN.",
            command=f"{seen.trimming} && {asked.to(str(trimmed(file.path)))}",
            advice="Write it without white space, and use that file",
        )
    elif seen.code == "keys.pin_file":
        yield fault(seen.code, seen=str(asked), cause=seen.cause, command=_replacing(file.path), advice=_INTO)


def _replacing(path: str) -> str:
    kept = shlex.join(["mv", "--backup=t", path, f"{path}.old"])
    return f"{kept} && {_writing(path)}"


def _writing(path: str) -> str:
    return f"(umask 077; set -C; cat > {shlex.quote(path)})"


# ---- what the token said


def _refused(seen: ChipFacts) -> Iterator[DoctorFinding]:
    if (rule := _BY_CODE.get(seen.code)) is not None:
        yield rule(seen)
    elif seen.code not in {"", "keys.pin_file"} and seen.tokens:
        yield DoctorFinding(seen.code, Topic.TOKEN, FindingSeverity.FAULT, seen.detail or seen.module, cause=seen.cause)


def _listed(seen: ChipFacts) -> str:
    return ", ".join(f"'{one.label}' in slot {one.slot_id}" for one in seen.tokens) or "no token"


def _no_token(seen: ChipFacts) -> DoctorFinding:
    asked = seen.asked.token or seen.asked.slot
    fault = partial(DoctorFinding, seen.code, Topic.TOKEN, FindingSeverity.FAULT, cause=seen.cause)
    where = f"{asked or 'no name'}; {seen.module} reports {_listed(seen)}"
    if not seen.tokens:
        power = _of_silence(seen) or "Connect the chip and check its power supply. "
        return fault(where, command=_SIMULATE, advice=f"{power}Or use a simulated secure element")
    if asked is None:
        return fault(where, command="birthmark chip ls", advice="List the tokens, and select one")
    return fault(where, command=_naming(seen), advice="Select one of these")


def _naming(seen: ChipFacts) -> str:
    """Return the command that names a token that is there: by its slot where the label is right, else by its label."""
    token, slot = seen.asked.token, seen.asked.slot
    same = [one for one in seen.tokens if token is None or one.label == token.value]
    if slot is not None and same:
        return slot.to(str(same[0].slot_id))
    return "" if token is None else token.to(seen.tokens[0].label)


def _several(seen: ChipFacts) -> DoctorFinding:
    labels = [one.label for one in seen.tokens]
    single = next((one for one in seen.tokens if labels.count(one.label) == 1), None)
    if single is None:
        command = f"export BIRTHMARK_SLOT={seen.tokens[0].slot_id}"
    elif seen.asked.token is not None:
        command = seen.asked.token.to(single.label)
    else:
        command = f"export BIRTHMARK_TOKEN={shlex.quote(single.label)}"
    where = f"{seen.asked.token or 'no name'}; {seen.module} reports {_listed(seen)}"
    return DoctorFinding(
        seen.code,
        Topic.TOKEN,
        FindingSeverity.FAULT,
        where,
        cause=seen.cause,
        command=command,
        advice="Select the right one",
    )


def _no_pin(seen: ChipFacts) -> DoctorFinding:
    beside = "" if seen.softhsm is None else seen.softhsm.pin_beside
    export = f"export BIRTHMARK_PIN_FILE={shlex.quote(beside)}"
    return DoctorFinding(
        seen.code,
        Topic.PIN,
        FindingSeverity.FAULT,
        f"{seen.module}: the token requires a PIN; neither --pin-file nor BIRTHMARK_PIN_FILE is set",
        cause=seen.cause,
        command=export if beside else f'{_writing("pin")}; export BIRTHMARK_PIN_FILE="$PWD/pin"',
        advice="Use the PIN file next to the simulated secure element's settings" if beside else _INTO,
    )


def _wrong_pin(seen: ChipFacts) -> DoctorFinding:
    asked, file = seen.asked.pin_file, seen.pin
    beside = "" if seen.softhsm is None else seen.softhsm.pin_beside
    if asked is not None and beside and beside != asked.value:
        command, advice = asked.to(beside), "Use the PIN file next to the simulated secure element's settings"
    elif file is not None:
        command, advice = _replacing(file.path), _INTO
    else:
        command, advice = _writing("pin"), f"{_INTO}, and use that file as the PIN file"
    if seen.asked.has_inline_pin:
        path = f"{seen.asked.config.rpartition('/')[0] or '.'}/pin"
        inline = r's|pin-value=[^"&]*|pin-source=file:' + path + "|"
        command = f"{_writing(path)} && {shlex.join(['sed', '-i', inline, seen.asked.config])}"
        advice = f"{_INTO}; the configuration then refers to its file"
    return DoctorFinding(
        "keys.pin_wrong",
        Topic.PIN,
        FindingSeverity.FAULT,
        f"{asked or 'the PIN of the configuration'}: the token returned {seen.detail}",
        cause=seen.cause,
        command=command,
        advice=f"Hardware tokens lock after a few wrong PINs: do not guess. {advice}",
    )


def _locked(seen: ChipFacts) -> DoctorFinding:
    return DoctorFinding(
        "keys.pin_locked",
        Topic.PIN,
        FindingSeverity.FAULT,
        f"{seen.module}: {seen.detail}",
        cause=seen.cause,
        advice="Unlock it with its security officer's PIN and the vendor's tool",
        for_a_person="the security officer's PIN",
    )


def _last_try(seen: ChipFacts) -> DoctorFinding:
    return DoctorFinding(
        "doctor.pin_last_try",
        Topic.PIN,
        FindingSeverity.FAULT,
        (
            f"{seen.module}: token '{seen.opened or seen.tokens[0].label}' has one attempt left, so the PIN "
            "was not tried"
        ),
        cause="One more wrong PIN locks the token.",
        advice="Verify the PIN. `birthmark chip ls` tries it; a correct PIN resets the counter",
        for_a_person="only the owner knows the PIN",
    )


def _no_key(seen: ChipFacts) -> DoctorFinding:
    wanted = seen.asked.key
    labels = [one.label for one in seen.keys if one.label]
    has_one = bool(labels) and wanted is not None
    return DoctorFinding(
        "keys.key_not_found",
        Topic.KEY,
        FindingSeverity.FAULT,
        f"{wanted}; token '{seen.opened}' has {', '.join(labels) or 'no private key'}",
        cause=f"The token has no private key {'' if wanted is None else wanted.value}.",
        command=wanted.to(labels[0]) if wanted is not None and labels else "birthmark chip ls",
        advice="Use the existing key" if has_one else "List the keys",
    )


_BY_CODE: Mapping[str, Callable[[ChipFacts], DoctorFinding]] = {
    "keys.token_not_found": _no_token,
    "keys.token_ambiguous": _several,
    "keys.pin_missing": _no_pin,
    "keys.pin_wrong": _wrong_pin,
    "keys.pin_locked": _locked,
    "doctor.pin_last_try": _last_try,
}


# ---- the key


def _key(seen: ChipFacts) -> Iterator[DoctorFinding]:
    wanted = seen.asked.key
    if wanted is None or not seen.opened or seen.code:
        return
    if any(one.label == wanted.value or one.key_id == wanted.value.removeprefix("id:") for one in seen.keys):
        return
    same = next((one for one in seen.keys if is_same_label(wanted.value, one.label)), None)
    yield _no_key(seen) if same is None else _swapped(seen, same)


def _swapped(seen: ChipFacts, same: KeyFacts) -> DoctorFinding:
    wanted = seen.asked.key
    assert wanted is not None  # noqa: S101 (the caller looked)
    return DoctorFinding(
        "doctor.label_byte_order",
        Topic.KEY,
        FindingSeverity.WARNING,
        f"{wanted}; the library's label is '{same.label}' for object 0x{object_id_of(same.label) or 0:08X}",
        cause=(
            "NXP's middleware up to 4.3 reverses the bytes of a label. Birthmark finds the key by either "
            "label; aziot and the vendors' SDKs need an exact match."
        ),
        command=wanted.to(same.label),
        advice="Use the library's label",
    )
