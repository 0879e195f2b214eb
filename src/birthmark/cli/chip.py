"""`birthmark chip`: secure elements, used through their PKCS#11 library.

Each command opens a single token: by --token, by --slot, or as the only one. The PIN is read from a file of mode 0600,
a descriptor, or a prompt.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from birthmark.cli.input_files import MAX_FILE_BYTES, FileMissingError, about, open_file, read_file
from birthmark.cli.option_checks_and_confirmation import only, only_typed
from birthmark.cli.options.chip_and_pin import CHIP_OPTIONS, ChipOutputOptions
from birthmark.cli.options.row_filter import PickOptions
from birthmark.cli.output.command_output import certificate_row, emit, say
from birthmark.errors import InvalidRequestError, NotFoundError
from birthmark.keys.key_handle import PublicKey
from birthmark.keys.pin import Pin
from birthmark.keys.pkcs11_token import TokenInfo
from birthmark.keys.pkcs11_uri_files import render_uri_pem
from birthmark.pki.certificates import parse_bundle
from birthmark.secure_elements.backends import list_chips
from birthmark.secure_elements.chip_profiles import Algorithm, profile_of
from birthmark.secure_elements.dps_assignment_codec import Layout
from birthmark.secure_elements.element_session import Element
from birthmark.secure_elements.errors import (
    ElementDataTooLargeError,
    ElementMemoryInvalidError,
    ElementProofInvalidError,
)
from birthmark.secure_elements.possession import MAX_NONCE_BYTES, MIN_NONCE_BYTES, PossessionProof, check_proof, prove
from birthmark.untrusted_json_and_text import decode_json

Key = Annotated[
    str | None,
    typer.Argument(metavar="[KEY]", help="Object ID (0xF0000100), label, or id:HEX. Default: the identity key."),
]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Output file; an existing file is kept. Default: standard output.")
]

_MAX_NONCE_FILE_BYTES = 64 * 1024


class ElementFileMissingError(FileMissingError):
    """The file cannot be read."""

    code = "elements.file_missing"


class ProofUnreadableError(InvalidRequestError):
    """Not a proof of possession."""

    code = "elements.proof_unreadable"
    cause = "{path} is not a proof of possession."
    fix = (
        "Pass the JSON object of the chip's proof. To create a new proof and keep the old file: `mv --backup=t "
        "{path} {path}.old && birthmark chip prove --nonce {nonce} > {path}`."
    )
    nonce: str
    path: Path


def list_(chip: ChipOutputOptions, pick: PickOptions) -> None:
    """List PKCS#11 tokens and their objects.

    With several tokens, or without a required PIN, only the tokens are listed.
    """
    pin = chip.pin()
    found = list_chips(chip.library)
    wanted = [info for info in found if chip.token in (None, info.label) and chip.slot in (None, info.slot_id)]
    if not wanted:
        chip.open_by(pin)[0].close()  # lists existing tokens
    alone = pin if len(wanted) == 1 else None  # a wrong PIN may lock it
    for row, line in pick.filter_rows(
        (one for info in wanted for one in _listed(chip, info, alone)), lambda one: one[0]
    ):
        say(chip.as_json, row, line)


def show(
    chip: ChipOutputOptions,
    key: Key = None,
    data: Annotated[str | None, typer.Option("--object", help="Print the bytes of this data object instead.")] = None,
    layout: Annotated[Layout | None, typer.Option(help="Memory layout to read. Default: any.")] = None,
) -> None:
    """Show a key, its certificate and the chip's data.

    Includes its location and its public key.
    """
    only(key is None, "without a KEY: it selects another object", object=data)
    only(data is None, "to the chip's stored data, not to the bytes of --object", layout=layout)
    with chip.open() as element:
        if data is not None:
            typer.echo(element.read_data(data), nl=False)
            return
        handle = element.key(key)
        row: dict[str, Any] = {
            "token": element.info.label,
            "profile": element.profile.name,
            "key": handle.describe(),
            "public_key": _pem(handle.public_key),
        }
        try:
            row |= certificate_row(element.certificate(key))
        except NotFoundError:
            row["subject"] = None
        if element.profile.memory_label is not None:
            row["remembers"] = _remembered(element, layout)
        emit(chip.as_json, row)


def cert(
    chip: ChipOutputOptions,
    key: Key = None,
    chain: Annotated[bool, typer.Option("--chain", help="Include the issuers stored in the chip, leaf first.")] = False,
    out: Out = None,
) -> None:
    """Read a key's certificate from the chip as PEM."""
    with chip.open() as element:
        found = element.chain(key) if chain else (element.certificate(key),)
        chip.result(out, "".join(one.pem() for one in found), certificate_row(found[0]))


def refkey(
    chip: ChipOutputOptions,
    key: Key = None,
    uri: Annotated[
        bool, typer.Option("--uri", help="Write a PEM file with the key's PKCS#11 URI, for any chip.")
    ] = False,
    out: Out = None,
) -> None:
    """Write a reference key for a key in the chip.

    The file identifies the key and contains no secret. Use it with `chip exec`.
    """
    with chip.open() as element:
        handle = element.key(key)
        text = render_uri_pem(handle.uri) if uri else element.reference_key(key)
        chip.result(out, text, {"key": handle.describe()})


def csr(
    chip: ChipOutputOptions,
    common_name: Annotated[str, typer.Option("--cn", help="Common name: the device ID.")],
    key: Key = None,
    out: Out = None,
) -> None:
    """Create a certificate request, signed in the chip."""
    with chip.open() as element:
        request = x509.load_der_x509_csr(element.csr(common_name, key))
        text = request.public_bytes(Encoding.PEM).decode()
        chip.result(out, text, {"subject": f"CN={common_name}", "key": element.key(key).describe()})


def keygen(
    chip: ChipOutputOptions,
    label: Annotated[str, typer.Argument(help="Label of the new key, or an SE050 object ID.")],
    algorithm: Annotated[Algorithm, typer.Option(help="Key algorithm.")] = Algorithm.P256,
    key_id: Annotated[str | None, typer.Option("--id", help="CKA_ID in hex.")] = None,
) -> None:
    """Generate a non-extractable key in the chip.

    An existing key is never replaced.
    """
    with chip.open() as element:
        made = element.generate_key(label, algorithm, _hex(key_id))
        row = {"key": made.describe(), "label": made.label, "id": made.key_id.hex()}
        emit(chip.as_json, {**row, "public_key": _pem(made.public_key)})


def write(
    chip: ChipOutputOptions,
    file: Annotated[Path, typer.Argument(help="Certificate or chain in PEM or DER; any bytes with --object.")],
    key: Annotated[
        str | None, typer.Option(help="Key that the certificate belongs to. Default: the identity key.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="Label for a CA certificate to store.")] = None,
    data: Annotated[str | None, typer.Option("--object", help="Data object for the file's bytes.")] = None,
    replace_data: Annotated[bool, typer.Option("--replace-data", help="Overwrite the data object's content.")] = False,
) -> None:
    """Write a certificate to the chip, next to its key.

    The issuer in a chain is written too if the chip has a place for it.
    """
    only(data is None, "to a certificate, not to --object", key=key, label=label)
    only(data is not None, "with --object", replace_data=replace_data)
    only(label is None, "with a key's certificate, not with a CA certificate and --label", key=key)
    with chip.open() as element:
        if data is not None:
            with open_file(file, ElementFileMissingError) as opened:
                raw, size = opened.read(MAX_FILE_BYTES + 1), os.fstat(opened.fileno()).st_size
            if len(raw) > MAX_FILE_BYTES:
                raise ElementDataTooLargeError(
                    size=max(size, len(raw)), limit=MAX_FILE_BYTES, label=data, file=str(file)
                )
            try:
                element.write_data(data, raw, may_replace=replace_data)
            except ElementDataTooLargeError as error:
                error.add_facts(file=file)
                raise
            emit(chip.as_json, {"data": data, "bytes": len(raw)})
            return
        with about(file):
            found = parse_bundle(read_file(file, missing=ElementFileMissingError))
        rows = [(element.write_certificate(found[0], key, label=label), found[0])]
        if label is None and element.profile.signer_label is not None and found[1:]:
            rows.append((element.write_certificate(found[1], label=element.profile.signer_label), found[1]))
        for written, certificate in rows:
            emit(chip.as_json, {"label": written, **certificate_row(certificate)})


def prove_(
    chip: ChipOutputOptions,
    nonce: Annotated[str, typer.Option(help="Nonce from the verifier: 8 to 1024 bytes of text.")],
    key: Key = None,
    check: Annotated[Path | None, typer.Option(help="Proof to verify instead; needs no chip.")] = None,
) -> None:
    """Prove that the chip holds its key by signing a nonce.

    Prints one JSON object.
    """
    if not MIN_NONCE_BYTES <= len(nonce.encode()) <= MAX_NONCE_BYTES:
        raise typer.BadParameter("the nonce has 8 to 1024 bytes", param_hint="--nonce")
    only(key is None, "without a KEY: it needs no chip", check=check)
    only_typed(check is None, "to signing with a chip; --check needs no chip", *CHIP_OPTIONS)
    if check is not None:
        emit(chip.as_json, {"proof": "holds", "public_key": _pem(_checked(check, nonce))})
        return
    with chip.open() as element:
        typer.echo(msgspec.json.encode(prove(element.key(key), nonce.encode())).decode())


# ---- inside


def _pem(key: PublicKey) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _listed(chip: ChipOutputOptions, info: TokenInfo, pin: Pin | None) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield a token and its objects, each with its text line."""
    about = {"token": info.label, "slot": info.slot_id, "profile": profile_of(info.label).name}
    more = {"serial": info.serial, "manufacturer": info.manufacturer, "model": info.model}
    line = f"{info.label}  slot {info.slot_id}  {profile_of(info.label).title}  ({info.manufacturer})"
    yield {"kind": "token", **about, **more}, line
    if info.needs_pin and pin is None:
        typer.echo("  To list its objects, set --token or --slot, and --pin-file.", err=True)
        return
    with replace(chip, token=info.label, slot=info.slot_id).open_by(pin)[0] as element:
        for item in element.objects():
            row = {"kind": item.kind, "label": item.label, "id": item.key_id, "object_id": item.object_id}
            called = item.label or (f"id:{item.key_id}" if item.key_id else "")
            name = called + (f" ({item.object_id})" if item.object_id else "")
            line = f"  {item.kind:<12} {name:<28} {item.detail}" + ("  never extractable" if item.is_guarded else "")
            yield {**row, "detail": item.detail, "guarded": item.is_guarded, **about}, line


def _remembered(element: Element, layout: Layout | None) -> Any:
    try:
        found = element.memory()
    except ElementMemoryInvalidError as foreign:
        return foreign.explain_cause()
    if layout is not None and found.layout not in (None, layout):
        return ElementMemoryInvalidError(detail=f"its layout is '{found.layout}'").explain_cause()
    if found.layout is None:
        return None
    return {"hub": found.hub or None, "device": found.device, "scope": found.scope, "layout": found.layout.value}


def _hex(text: str | None) -> bytes | None:
    try:
        return None if text is None else bytes.fromhex(text)
    except ValueError:
        raise typer.BadParameter("the ID must be hex digits", param_hint="--id") from None


def _checked(path: Path, nonce: str) -> PublicKey:
    """Return the key of a verified proof of possession; errors contain the required nonce."""
    try:
        proof = decode_json(read_file(path, _MAX_NONCE_FILE_BYTES, ElementFileMissingError), PossessionProof)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProofUnreadableError(path=path, nonce=nonce) from error
    try:
        return check_proof(proof, nonce.encode())
    except ElementProofInvalidError as error:
        error.add_facts(path=path, nonce=nonce)
        raise
