"""The device's certificate and key in files, and the name it registers by."""

import shlex
from collections.abc import Iterator
from functools import partial

from birthmark.doctor.facts import ChipFacts, FileFacts, IdentityFacts, KeyFacts, LeafFacts
from birthmark.doctor.model import DoctorFinding, FindingSeverity, Topic
from birthmark.doctor.setting_sources import SourcedSetting
from birthmark.keys.se050_labels import object_id_of

_EXCHANGE = 'export X509_CERT_FILE="$X509_KEY_FILE" X509_KEY_FILE="$X509_CERT_FILE"'
_RIGHT = "Name the right files. Until then name none"
_ANEW = "Look at the clock: `date -u`. Else have one issued anew, and name none until then"
_FORGET = "unset X509_CERT_FILE X509_KEY_FILE"
_fault = partial(DoctorFinding, topic=Topic.IDENTITY, severity=FindingSeverity.FAULT)
_warning = partial(DoctorFinding, topic=Topic.IDENTITY, severity=FindingSeverity.WARNING)


def findings(seen: IdentityFacts, chips: tuple[ChipFacts, ...] = ()) -> Iterator[DoctorFinding]:
    """Return what is wrong with the files, the cause before what follows from it."""
    if seen.is_certificate_in_key and seen.is_key_in_certificate:
        yield _fault(
            "keys.file_is_certificate",
            seen=f"{seen.key} holds a certificate, {seen.certificate} a key",
            cause="The two files are swapped.",
            command=_EXCHANGE,
            advice="Exchange their names",
        )
        return
    found = [*_certificate(seen), *_key(seen, chips)] or [*_pair(seen)]
    yield from found
    if not found and seen.leaf is not None:
        yield DoctorFinding(
            "doctor.identity", Topic.IDENTITY, FindingSeverity.OK, f"{seen.leaf.subject}, {_until(seen.leaf)}"
        )


def _until(leaf: LeafFacts) -> str:
    return f"valid from {leaf.not_before} to {leaf.not_after} UTC"


def _certificate(seen: IdentityFacts) -> Iterator[DoctorFinding]:
    file, said = seen.certificate_file, seen.certificate
    if file is None or said is None:
        return
    if not file.exists or file.reason:
        there = seen.matching_certificate
        yield _fault(
            "device.certificate_missing",
            seen=f"{said}: {file.reason}",
            cause="The device's certificate cannot be read.",
            command=said.to(there) if there else _FORGET,
            advice="This one belongs to the key" if there else _RIGHT,
        )
    elif seen.is_der:
        there = f"{file.path}.pem"
        convert = f"(set -C; openssl x509 -inform der -in {shlex.quote(file.path)} > {shlex.quote(there)})"
        yield _fault(
            "doctor.certificate_is_der",
            seen=f"{said}: DER, where PEM is read",
            cause="The certificate is in binary form; programs read it as text (PEM).",
            command=f"{convert} && {said.to(there)}",
            advice="Make a PEM file of it",
        )
    elif seen.certificate_code:
        yield _fault(
            seen.certificate_code,
            seen=str(said),
            cause=seen.certificate_cause,
            command=said.to(seen.matching_certificate) if seen.matching_certificate else _FORGET,
            advice="This one belongs to the key" if seen.matching_certificate else _RIGHT,
        )


def _key(seen: IdentityFacts, chips: tuple[ChipFacts, ...]) -> Iterator[DoctorFinding]:
    file, said = seen.key_file, seen.key
    if file is None or said is None:
        return
    path = shlex.quote(file.path)
    match seen.key_code:
        case "":
            return
        case "keys.reference_key":
            yield from _reference(seen, said, file, chips)
        case "keys.file_exposed":
            yield _fault(
                "keys.file_exposed",
                seen=f"{said}: mode {file.mode:04o}",
                cause=seen.key_cause,
                command=f"chmod 0600 {path}",
                advice="Close it, and make a new key if others had access",
            )
        case "keys.passphrase_wrong":
            yield _fault(
                "keys.passphrase_wrong",
                seen=f"{said}: encrypted, and PASS_PHRASE does not open it",
                cause=seen.key_cause,
                command="stty -echo; read -r PASS_PHRASE; stty echo; export PASS_PHRASE",
                advice="Type it and Enter after this; it is not shown",
            )
        case code:
            there = seen.matching_key
            yield _fault(
                code,
                seen=str(said),
                cause=seen.key_cause,
                command=said.to(there) if there else _FORGET,
                advice="This one belongs to the certificate" if there else _RIGHT,
            )


def _reference(
    seen: IdentityFacts, said: SourcedSetting, file: FileFacts, chips: tuple[ChipFacts, ...]
) -> Iterator[DoctorFinding]:
    """A file that only names an object in a chip: is the chip here, and is it that chip?"""
    wanted = seen.object_id or 0
    for chip in chips:
        key = next((one for one in chip.keys if object_id_of(one.label) == wanted), None)
        if key is not None:
            yield _of_this_chip(seen, said, key, chip)
            return
    yield _fault(
        "keys.reference_key",
        seen=f"{said}: names object 0x{wanted:08X} of a chip; no chip that was looked at has it",
        cause="The file is no key: the private key is in a chip, and the handshake fails at the server without it.",
        command=_FORGET,
        advice=f"Name the chip's library and token, and give the commands --element instead of the file {file.path}",
    )


def _of_this_chip(seen: IdentityFacts, said: SourcedSetting, key: KeyFacts, chip: ChipFacts) -> DoctorFinding:
    if key.public and seen.reference_public and key.public != seen.reference_public:
        write = shlex.join(["birthmark", "chip", "refkey", f"0x{seen.object_id or 0:08X}", "--out", said.value])
        return _fault(
            "doctor.reference_key_of_another_chip",
            seen=f"{said}: its public half is not that of '{key.label}' in token '{chip.opened}'",
            cause="The reference key was made for another chip: the server would see a key that is not proven.",
            command=f"{write} && {_FORGET}",
            advice="Write it anew from this chip, which commands use by --element",
        )
    return _fault(
        "keys.reference_key",
        seen=f"{said}: names '{key.label}', which is in token '{chip.opened}'",
        cause="The file is no key: programs load it, and the handshake fails at the server.",
        command=_FORGET,
        advice="Use --element, and `birthmark chip exec -- PROGRAM` for a program that takes key files. Here",
    )


def _pair(seen: IdentityFacts) -> Iterator[DoctorFinding]:
    leaf, said, key = seen.leaf, seen.certificate, seen.key
    if leaf is None or said is None:
        return
    if key is not None and seen.key_public and seen.key_public != leaf.public:
        there = seen.matching_certificate
        yield _fault(
            "links.certificate_key_mismatch",
            seen=f"{said} ({leaf.subject}) and {key}",
            cause="The certificate is of another key: the server would refuse the handshake.",
            command=said.to(there) if there else _FORGET,
            advice="This one belongs to the key" if there else "Name files that belong together",
        )
        return
    if leaf.is_expired or leaf.is_early:
        yield _out_of_time(seen, leaf, said)
    if seen.issuer:
        yield _warning(
            "doctor.chain_incomplete",
            seen=f"{said}: the CA that issued {leaf.subject} is in {seen.issuer}, and not in the chain",
            cause="A server that knows the root alone cannot build the chain.",
            command=f"cat {shlex.quote(seen.issuer)} >> {shlex.quote(said.value)}",
            advice="Add it",
        )
    name = seen.registration_id
    if name is not None and name.value.lower() != leaf.common_name.lower():
        yield _fault(
            "doctor.registration_id_mismatch",
            seen=f"{name}; the certificate is of {leaf.common_name}",
            cause="With a certificate the registration id is its common name: DPS refuses every other.",
            command=name.to(leaf.common_name),
            advice="Use the certificate's",
        )


def _out_of_time(seen: IdentityFacts, leaf: LeafFacts, said: SourcedSetting) -> DoctorFinding:
    when = "has ended" if leaf.is_expired else "begins later"
    code = "doctor.certificate_expired" if leaf.is_expired else "doctor.certificate_not_yet_valid"
    fault = partial(_fault, code, seen=f"{said}: {leaf.subject}, {_until(leaf)}")
    cause = f"By this machine's clock the certificate's validity {when}."
    if not (seen.ca and seen.key and leaf.is_expired):
        return fault(cause=cause, command=_FORGET, advice=_ANEW)
    subject = f"/CN={leaf.common_name}"
    request = shlex.join(["openssl", "req", "-new", "-key", seen.key.value, "-subj", subject])
    csr, fresh = shlex.quote(f"{said.value}.csr"), shlex.quote(f"{said.value}.new")
    sign = f"birthmark ca sign {csr} --dir {shlex.quote(seen.ca)} --out {fresh}"
    return fault(
        cause=cause,
        command=f"(set -C; {request} > {csr}) && {sign} && mv --backup=t {fresh} {shlex.quote(said.value)}",
        advice="The CA that issued it is here; let it issue one anew for the same key",
    )
