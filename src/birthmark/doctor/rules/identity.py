"""Checks of the device's certificate and key in files, and of its registration name."""

import shlex
from collections.abc import Iterator
from functools import partial

from birthmark.doctor.facts import ChipFacts, FileFacts, IdentityFacts, KeyFacts, LeafFacts
from birthmark.doctor.findings import DoctorFinding, FindingSeverity, Topic
from birthmark.doctor.setting_sources import SourcedSetting
from birthmark.keys.se050_labels import object_id_of

_EXCHANGE = 'export X509_CERT_FILE="$X509_KEY_FILE" X509_KEY_FILE="$X509_CERT_FILE"'
_RIGHT = "Set the correct files. Until then, unset the variables"
_ANEW = "Check the clock: `date -u`. If it is correct, request a new certificate, and unset the variables until then"
_FORGET = "unset X509_CERT_FILE X509_KEY_FILE"
_fault = partial(DoctorFinding, topic=Topic.IDENTITY, severity=FindingSeverity.FAULT)
_warning = partial(DoctorFinding, topic=Topic.IDENTITY, severity=FindingSeverity.WARNING)


def findings(facts: IdentityFacts, chips: tuple[ChipFacts, ...] = ()) -> Iterator[DoctorFinding]:
    """Yield the problems of the files, causes before consequences."""
    if facts.is_certificate_in_key and facts.is_key_in_certificate:
        yield _fault(
            "keys.file_is_certificate",
            seen=f"{facts.key} contains a certificate, {facts.certificate} a key",
            cause="The two files are swapped.",
            command=_EXCHANGE,
            advice="Swap the variables",
        )
        return
    found = [*_certificate(facts), *_key(facts, chips)] or [*_pair(facts)]
    yield from found
    if not found and facts.leaf is not None:
        yield DoctorFinding(
            "doctor.identity", Topic.IDENTITY, FindingSeverity.OK, f"{facts.leaf.subject}, {_until(facts.leaf)}"
        )


def _until(leaf: LeafFacts) -> str:
    return f"valid from {leaf.not_before} to {leaf.not_after} UTC"


def _certificate(facts: IdentityFacts) -> Iterator[DoctorFinding]:
    file, said = facts.certificate_file, facts.certificate
    if file is None or said is None:
        return
    if not file.exists or file.reason:
        there = facts.matching_certificate
        yield _fault(
            "device.certificate_missing",
            seen=f"{said}: {file.reason}",
            cause="The device's certificate cannot be read.",
            command=said.set_command(there) if there else _FORGET,
            advice="Use the certificate of this key" if there else _RIGHT,
        )
    elif facts.is_der:
        there = f"{file.path}.pem"
        convert = f"(set -C; openssl x509 -inform der -in {shlex.quote(file.path)} > {shlex.quote(there)})"
        yield _fault(
            "doctor.certificate_is_der",
            seen=f"{said}: DER instead of PEM",
            cause="The certificate is in binary form (DER); programs need PEM.",
            command=f"{convert} && {said.set_command(there)}",
            advice="Convert it to PEM",
        )
    elif facts.certificate_code:
        yield _fault(
            facts.certificate_code,
            seen=str(said),
            cause=facts.certificate_cause,
            command=said.set_command(facts.matching_certificate) if facts.matching_certificate else _FORGET,
            advice="Use the key's certificate" if facts.matching_certificate else _RIGHT,
        )


def _key(facts: IdentityFacts, chips: tuple[ChipFacts, ...]) -> Iterator[DoctorFinding]:
    file, said = facts.key_file, facts.key
    if file is None or said is None:
        return
    path = shlex.quote(file.path)
    match facts.key_code:
        case "":
            return
        case "keys.reference_key":
            yield from _reference(facts, said, file, chips)
        case "keys.file_exposed":
            yield _fault(
                "keys.file_exposed",
                seen=f"{said}: mode {file.mode:04o}",
                cause=facts.key_cause,
                command=f"chmod 0600 {path}",
                advice="Restrict the permissions, and create a new key if others had access",
            )
        case "keys.passphrase_wrong":
            yield _fault(
                "keys.passphrase_wrong",
                seen=f"{said}: encrypted, and PASS_PHRASE is missing or wrong",
                cause=facts.key_cause,
                command="stty -echo; read -r PASS_PHRASE; stty echo; export PASS_PHRASE",
                advice="Type the passphrase and Enter after this command; it is not shown",
            )
        case code:
            there = facts.matching_key
            yield _fault(
                code,
                seen=str(said),
                cause=facts.key_cause,
                command=said.set_command(there) if there else _FORGET,
                advice="Use the certificate's key" if there else _RIGHT,
            )


def _reference(
    facts: IdentityFacts, setting: SourcedSetting, file: FileFacts, chips: tuple[ChipFacts, ...]
) -> Iterator[DoctorFinding]:
    """Yield findings about a file that only refers to an object in a token: presence and identity of the token."""
    wanted = facts.object_id or 0
    for chip in chips:
        key = next((one for one in chip.keys if object_id_of(one.label) == wanted), None)
        if key is not None:
            yield _of_this_chip(facts, setting, key, chip)
            return
    yield _fault(
        "keys.reference_key",
        seen=f"{setting}: refers to object 0x{wanted:08X} of a chip; no checked chip has it",
        cause="The file is a reference key: the private key is in a chip, and the handshake fails without it.",
        command=_FORGET,
        advice=f"Set the chip's library and token, and use --chip instead of the file {file.path}",
    )


def _of_this_chip(facts: IdentityFacts, setting: SourcedSetting, key: KeyFacts, chip: ChipFacts) -> DoctorFinding:
    if key.public and facts.reference_public and key.public != facts.reference_public:
        write = shlex.join(["birthmark", "chip", "refkey", f"0x{facts.object_id or 0:08X}", "--out", setting.value])
        return _fault(
            "doctor.reference_key_of_another_chip",
            seen=f"{setting}: its public key is not that of '{key.label}' in token '{chip.opened}'",
            cause="The reference key belongs to another chip: the server would reject the handshake signature.",
            command=f"{write} && {_FORGET}",
            advice="Write it again from this chip; commands use the key with --chip",
        )
    return _fault(
        "keys.reference_key",
        seen=f"{setting}: refers to '{key.label}', which is in token '{chip.opened}'",
        cause="The file is a reference key: programs can load it, but the handshake fails at the server.",
        command=_FORGET,
        advice="Use --chip. For a program that needs key files, use `birthmark chip exec -- PROGRAM`. Here",
    )


def _pair(facts: IdentityFacts) -> Iterator[DoctorFinding]:
    leaf, said, key = facts.leaf, facts.certificate, facts.key
    if leaf is None or said is None:
        return
    if key is not None and facts.key_public and facts.key_public != leaf.public:
        there = facts.matching_certificate
        yield _fault(
            "links.certificate_key_mismatch",
            seen=f"{said} ({leaf.subject}) and {key}",
            cause="The certificate belongs to another key: the server would reject the handshake.",
            command=said.set_command(there) if there else _FORGET,
            advice="Use the certificate of this key" if there else "Use matching files",
        )
        return
    if leaf.is_expired or leaf.is_early:
        yield _out_of_time(facts, leaf, said)
    if facts.issuer:
        yield _warning(
            "doctor.chain_incomplete",
            seen=f"{said}: the CA that issued {leaf.subject} is in {facts.issuer}, but not in the chain",
            cause="A server that only has the root cannot build the chain.",
            command=f"cat {shlex.quote(facts.issuer)} >> {shlex.quote(said.value)}",
            advice="Add it",
        )
    name = facts.registration_id
    if name is not None and name.value.lower() != leaf.common_name.lower():
        yield _fault(
            "doctor.registration_id_mismatch",
            seen=f"{name}; the certificate's name is {leaf.common_name}",
            cause="With a certificate, the registration ID is its common name: DPS rejects other IDs.",
            command=name.set_command(leaf.common_name),
            advice="Use the certificate's name",
        )


def _out_of_time(facts: IdentityFacts, leaf: LeafFacts, setting: SourcedSetting) -> DoctorFinding:
    when = "has ended" if leaf.is_expired else "has not started"
    code = "doctor.certificate_expired" if leaf.is_expired else "doctor.certificate_not_yet_valid"
    fault = partial(_fault, code, seen=f"{setting}: {leaf.subject}, {_until(leaf)}")
    cause = f"According to this machine's clock, the certificate's validity {when}."
    if not (facts.ca and facts.key and leaf.is_expired):
        return fault(cause=cause, command=_FORGET, advice=_ANEW)
    subject = f"/CN={leaf.common_name}"
    request = shlex.join(["openssl", "req", "-new", "-key", facts.key.value, "-subj", subject])
    csr, fresh = shlex.quote(f"{setting.value}.csr"), shlex.quote(f"{setting.value}.new")
    sign = f"birthmark ca sign {csr} --dir {shlex.quote(facts.ca)} --out {fresh}"
    return fault(
        cause=cause,
        command=f"(set -C; {request} > {csr}) && {sign} && mv --backup=t {fresh} {shlex.quote(setting.value)}",
        advice="The issuing CA is on this machine; issue a new certificate for the same key",
    )
