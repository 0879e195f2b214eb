"""Rules for a secure element's library, token, PIN and key."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from birthmark.doctor.facts import ChipFacts, KeyFacts, ProbeExit, SoftHsmFacts
from birthmark.doctor.findings import DoctorFinding, FindingSeverity, Topic
from birthmark.keys.se050_labels import is_same_label, object_id_of
from birthmark.text_file_encodings import trimmed

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


def findings(facts: ChipFacts) -> Iterator[DoctorFinding]:
    """Yield the problems of a secure element, causes before consequences; without any, the passed checks."""
    found = [*_store(facts), *_library(facts), *_pin_file(facts), *_refused(facts), *_key(facts)]
    yield from found
    if not found and facts.opened:
        labels = ", ".join(f"'{one.label}'" for one in facts.keys) or "no private key"
        yield DoctorFinding(
            "doctor.chip", Topic.TOKEN, FindingSeverity.OK, f"{facts.module}: token '{facts.opened}' opens; {labels}"
        )


def not_named(libraries: Sequence[str]) -> Iterator[DoctorFinding]:
    """Yield the finding that a secure element's library is installed, but no setting names it."""
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


# ---- SoftHSM settings


def _store(facts: ChipFacts) -> Iterator[DoctorFinding]:
    hsm = facts.softhsm
    if hsm is None or hsm.setting is None:
        return
    fault = partial(DoctorFinding, topic=Topic.STORE, severity=FindingSeverity.FAULT)
    if not hsm.conf.exists:
        other = hsm.conf_beside_pin
        yield fault(
            "doctor.softhsm_settings_missing",
            seen=f"{hsm.setting}: {hsm.conf.reason or 'no such file'}",
            cause="SoftHSM's settings are not at the path in SOFTHSM2_CONF, so it has no tokens.",
            command=hsm.setting.set_command(other) if other else _SIMULATE,
            advice="Use the settings next to the PIN file"
            if other
            else "Set the correct file, or create a simulated secure element",
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
        advice="Use the directory next to the settings" if hsm.tokens_beside else "Create a simulated secure element",
    )


# ---- library


def _library(facts: ChipFacts) -> Iterator[DoctorFinding]:
    """Yield the reason why the library cannot be used, if any."""
    if not facts.library.exists or facts.library.is_directory:
        what = "a directory" if facts.library.is_directory else facts.library.reason or "no such file"
        yield _unusable(facts, "keys.module_missing", what, f"The PKCS#11 library {facts.module} does not exist.")
    elif facts.built_for and facts.built_for != facts.here:
        what = f"built for {facts.built_for}, this is {facts.here}"
        cause = "The library is for another machine architecture and cannot be loaded."
        yield _unusable(facts, "doctor.library_foreign", what, cause)
    elif facts.ending is ProbeExit.CRASHED:
        cause = "The library crashes. Usually, its settings are wrong, or the chip does not match them."
        yield _unusable(facts, "doctor.library_crashes", facts.detail, cause)
    elif facts.ending is ProbeExit.HUNG:
        cause = "The library does not respond: another process uses the chip, or the chip does not respond."
        yield _unusable(facts, "doctor.library_hangs", facts.detail, cause)
    elif facts.code in {"keys.module_broken", "keys.token_failed"} and not facts.tokens and not any(_store(facts)):
        yield _unusable(facts, "keys.module_broken", facts.detail, facts.cause)


def _unusable(facts: ChipFacts, code: str, message: str, cause: str) -> DoctorFinding:
    command, advice = _SIMULATE, "Install the chip's own library and set its path. Or use a simulated secure element"
    if silent := _advise_on_silence(facts):
        advice = f"{silent}Or use a simulated secure element"
    elif facts.others and facts.asked.module is not None:
        command, advice = facts.asked.module.set_command(facts.others[0]), "Use a library that exists on this machine"
    where = f"{facts.asked.module or facts.module}: {message}"
    return DoctorFinding(code, Topic.LIBRARY, FindingSeverity.FAULT, where, cause=cause, command=command, advice=advice)


def _advise_on_silence(facts: ChipFacts) -> str:
    """Return advice for an intact library that gets no response from its hardware; empty for other cases."""
    is_silent = facts.ending is ProbeExit.HUNG or (
        facts.ending is ProbeExit.FINE and bool(facts.code) and not facts.tokens
    )
    if is_silent and facts.module.startswith(_MICROCHIP):
        bus = facts.module.rpartition(",")[2]
        return _ADDRESS.format(bus=bus if bus.isdecimal() else 1)
    return _ENA if is_silent and NXP_LIBRARY in facts.module else ""


# ---- PIN file


def _pin_file(facts: ChipFacts) -> Iterator[DoctorFinding]:
    file, asked = facts.pin, facts.asked.pin_file
    if file is None or asked is None:
        return
    fault = partial(DoctorFinding, topic=Topic.PIN_FILE, severity=FindingSeverity.FAULT)
    beside = "" if facts.softhsm is None else facts.softhsm.pin_beside
    if not file.exists or file.reason:
        yield fault(
            "keys.pin_file_missing",
            seen=f"{asked}: {file.reason or 'no such file'}",
            cause="The PIN file cannot be read.",
            command=asked.set_command(beside) if beside else _writing(file.path),
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
    elif facts.trimming and facts.code == "keys.pin_file":
        yield fault(
            "doctor.pin_has_spaces",
            seen=f"{asked}: the line starts or ends with white space, so the PIN was not tried",
            cause="White space counts as part of the PIN.",
            command=f"{facts.trimming} && {asked.set_command(str(trimmed(file.path)))}",
            advice="Write it without white space, and use that file",
        )
    elif facts.code == "keys.pin_file":
        yield fault(facts.code, seen=str(asked), cause=facts.cause, command=_replacing(file.path), advice=_INTO)


def _replacing(path: str) -> str:
    kept = shlex.join(["mv", "--backup=t", path, f"{path}.old"])
    return f"{kept} && {_writing(path)}"


def _writing(path: str) -> str:
    return f"(umask 077; set -C; cat > {shlex.quote(path)})"


# ---- token errors


def _refused(facts: ChipFacts) -> Iterator[DoctorFinding]:
    if (rule := _BY_CODE.get(facts.code)) is not None:
        yield rule(facts)
    elif facts.code not in {"", "keys.pin_file"} and facts.tokens:
        yield DoctorFinding(
            facts.code, Topic.TOKEN, FindingSeverity.FAULT, facts.detail or facts.module, cause=facts.cause
        )


def _listed(facts: ChipFacts) -> str:
    return ", ".join(f"'{one.label}' in slot {one.slot_id}" for one in facts.tokens) or "no token"


def _no_token(facts: ChipFacts) -> DoctorFinding:
    asked = facts.asked.token or facts.asked.slot
    fault = partial(DoctorFinding, facts.code, Topic.TOKEN, FindingSeverity.FAULT, cause=facts.cause)
    where = f"{asked or 'no name'}; {facts.module} reports {_listed(facts)}"
    if not facts.tokens:
        power = _advise_on_silence(facts) or "Connect the chip and check its power supply. "
        return fault(where, command=_SIMULATE, advice=f"{power}Or use a simulated secure element")
    if asked is None:
        return fault(where, command="birthmark chip ls", advice="List the tokens, and select one")
    return fault(where, command=_token_selection_command(facts), advice="Select one of these")


def _token_selection_command(facts: ChipFacts) -> str:
    """Return the command that selects an existing token: by slot if the label matches, otherwise by label."""
    token, slot = facts.asked.token, facts.asked.slot
    same = [one for one in facts.tokens if token is None or one.label == token.value]
    if slot is not None and same:
        return slot.set_command(str(same[0].slot_id))
    return "" if token is None else token.set_command(facts.tokens[0].label)


def _several(facts: ChipFacts) -> DoctorFinding:
    labels = [one.label for one in facts.tokens]
    single = next((one for one in facts.tokens if labels.count(one.label) == 1), None)
    if single is None:
        command = f"export BIRTHMARK_SLOT={facts.tokens[0].slot_id}"
    elif facts.asked.token is not None:
        command = facts.asked.token.set_command(single.label)
    else:
        command = f"export BIRTHMARK_TOKEN={shlex.quote(single.label)}"
    where = f"{facts.asked.token or 'no name'}; {facts.module} reports {_listed(facts)}"
    return DoctorFinding(
        facts.code,
        Topic.TOKEN,
        FindingSeverity.FAULT,
        where,
        cause=facts.cause,
        command=command,
        advice="Select the right one",
    )


def _no_pin(facts: ChipFacts) -> DoctorFinding:
    beside = "" if facts.softhsm is None else facts.softhsm.pin_beside
    export = f"export BIRTHMARK_PIN_FILE={shlex.quote(beside)}"
    return DoctorFinding(
        facts.code,
        Topic.PIN,
        FindingSeverity.FAULT,
        f"{facts.module}: the token requires a PIN; neither --pin-file nor BIRTHMARK_PIN_FILE is set",
        cause=facts.cause,
        command=export if beside else f'{_writing("pin")}; export BIRTHMARK_PIN_FILE="$PWD/pin"',
        advice="Use the PIN file next to the simulated secure element's settings" if beside else _INTO,
    )


def _wrong_pin(facts: ChipFacts) -> DoctorFinding:
    asked, file = facts.asked.pin_file, facts.pin
    beside = "" if facts.softhsm is None else facts.softhsm.pin_beside
    if asked is not None and beside and beside != asked.value:
        command, advice = asked.set_command(beside), "Use the PIN file next to the simulated secure element's settings"
    elif file is not None:
        command, advice = _replacing(file.path), _INTO
    else:
        command, advice = _writing("pin"), f"{_INTO}, and use that file as the PIN file"
    if facts.asked.has_inline_pin:
        path = f"{facts.asked.config.rpartition('/')[0] or '.'}/pin"
        inline = r's|pin-value=[^"&]*|pin-source=file:' + path + "|"
        command = f"{_writing(path)} && {shlex.join(['sed', '-i', inline, facts.asked.config])}"
        advice = f"{_INTO}; the configuration then refers to its file"
    return DoctorFinding(
        "keys.pin_wrong",
        Topic.PIN,
        FindingSeverity.FAULT,
        f"{asked or 'the PIN of the configuration'}: the token returned {facts.detail}",
        cause=facts.cause,
        command=command,
        advice=f"Hardware tokens lock after a few wrong PINs: do not guess. {advice}",
    )


def _locked(facts: ChipFacts) -> DoctorFinding:
    return DoctorFinding(
        "keys.pin_locked",
        Topic.PIN,
        FindingSeverity.FAULT,
        f"{facts.module}: {facts.detail}",
        cause=facts.cause,
        advice="Unlock it with its security officer's PIN and the vendor's tool",
        for_a_person="the security officer's PIN",
    )


def _last_try(facts: ChipFacts) -> DoctorFinding:
    return DoctorFinding(
        "doctor.pin_last_try",
        Topic.PIN,
        FindingSeverity.FAULT,
        (
            f"{facts.module}: token '{facts.opened or facts.tokens[0].label}' has one attempt left, so the PIN "
            "was not tried"
        ),
        cause="One more wrong PIN locks the token.",
        advice="Verify the PIN. `birthmark chip ls` tries it; a correct PIN resets the counter",
        for_a_person="only the owner knows the PIN",
    )


def _no_key(facts: ChipFacts) -> DoctorFinding:
    wanted = facts.asked.key
    labels = [one.label for one in facts.keys if one.label]
    has_one = bool(labels) and wanted is not None
    return DoctorFinding(
        "keys.key_not_found",
        Topic.KEY,
        FindingSeverity.FAULT,
        f"{wanted}; token '{facts.opened}' has {', '.join(labels) or 'no private key'}",
        cause=f"The token has no private key {'' if wanted is None else wanted.value}.",
        command=wanted.set_command(labels[0]) if wanted is not None and labels else "birthmark chip ls",
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


# ---- key


def _key(facts: ChipFacts) -> Iterator[DoctorFinding]:
    wanted = facts.asked.key
    if wanted is None or not facts.opened or facts.code:
        return
    if any(one.label == wanted.value or one.key_id == wanted.value.removeprefix("id:") for one in facts.keys):
        return
    same = next((one for one in facts.keys if is_same_label(wanted.value, one.label)), None)
    yield _no_key(facts) if same is None else _swapped(facts, same)


def _swapped(facts: ChipFacts, same: KeyFacts) -> DoctorFinding:
    wanted = facts.asked.key
    assert wanted is not None  # noqa: S101 (already checked)
    return DoctorFinding(
        "doctor.label_byte_order",
        Topic.KEY,
        FindingSeverity.WARNING,
        f"{wanted}; the library's label is '{same.label}' for object 0x{object_id_of(same.label) or 0:08X}",
        cause=(
            "NXP's middleware up to 4.3 reverses the bytes of a label. Birthmark finds the key by either "
            "label; aziot and the vendors' SDKs need an exact match."
        ),
        command=wanted.set_command(same.label),
        advice="Use the library's label",
    )
