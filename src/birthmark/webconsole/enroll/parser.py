"""Parser of uploaded files to rows: each entry is verified by its kind of list, or has a rejection reason.

It blocks; run it in a thread. One kind of list at a time: device certificates, a supplier's manifest, an exported
bundle, a table or a ZIP file. The content is untrusted: the size of entries and their number are limited.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeAlias

from birthmark.errors import BirthmarkError, about
from birthmark.manifests.bundle import line_format
from birthmark.manifests.bundle.accepted_stations_and_roots import BundleTrust
from birthmark.manifests.bundle.verifier import BundleVerifier, verify_file
from birthmark.manifests.certificate_lists import MAX_FILE_BYTES, ListTrust, is_table, verify_list
from birthmark.manifests.duplicate_chips import DuplicateCheck
from birthmark.manifests.errors import ManifestError
from birthmark.manifests.manifest_chunks import pieces_of
from birthmark.manifests.manifest_entry import ManifestEntry
from birthmark.manifests.microchip_trust_anchors import MICROCHIP_ROOTS, MICROCHIP_SIGNERS
from birthmark.manifests.microchip_verifier import ManifestVerifier, root_of, signer_of, trust_of
from birthmark.operator_api.api_router import told
from birthmark.pki.certificates import Certificate, leaf_first, parse_bundle
from birthmark.text_file_encodings import plain_text
from birthmark.webconsole.enroll.limits import MAX_ROWS
from birthmark.webconsole.enroll.multipart import LIST, SIGNERS, TRUST, DropRefusedError, UploadedFile

Row: TypeAlias = dict[str, Any]
_BEGIN_BYTES = 512


class UploadKind(StrEnum):
    """Kind of upload."""

    CERTIFICATES = "certificates"
    MANIFEST = "manifest"
    BUNDLE = "bundle"
    TABLE = "table"
    ZIP = "zip"


@dataclass(frozen=True, slots=True)
class ParsedUpload:
    """Uploaded files, and the signers that are trusted for them."""

    kind: UploadKind
    files: Sequence[UploadedFile]
    signers: Sequence[Certificate] = ()
    roots: Sequence[Certificate] = ()


def sort(files: Sequence[UploadedFile]) -> ParsedUpload:
    """Classify the files. Raise `DropRefusedError`, and the errors of a signer or a root."""
    lists = [one for one in files if one.kind == LIST]
    if not lists:
        raise DropRefusedError(detail="no file was chosen")
    kinds = {_kind_of(one) for one in lists}
    if len(kinds) > 1 or (len(lists) > 1 and kinds != {UploadKind.CERTIFICATES}):
        raise DropRefusedError(detail="they are several lists; choose one, or any number of certificates")
    return ParsedUpload(kinds.pop(), lists, _certificates(files, SIGNERS), _certificates(files, TRUST))


def rows_of(dropped: ParsedUpload, now: datetime, is_over: Callable[[], bool]) -> Iterator[Row]:
    """Yield each entry as a row, in order.

    Raise `DropRefusedError` or `ManifestError` if the list itself is invalid.
    """
    for place, one in enumerate(_entries(dropped, now), 1):
        if is_over():
            return
        if place > MAX_ROWS:
            raise DropRefusedError(detail=f"it has more than {MAX_ROWS} rows")
        yield _row(place, one)


def _kind_of(file: UploadedFile) -> UploadKind:
    with file.path.open("rb") as raw:
        begin = plain_text(raw.read(_BEGIN_BYTES))
    if begin.startswith(b"PK"):
        return UploadKind.ZIP
    if line_format.is_bundle(begin):
        return UploadKind.BUNDLE
    if begin.lstrip()[:1] == b"[" or file.name.lower().endswith(".json"):
        return UploadKind.MANIFEST
    is_named_so = file.name.lower().endswith((".csv", ".tsv"))
    return UploadKind.TABLE if is_named_so or is_table(begin) else UploadKind.CERTIFICATES


def _certificates(files: Sequence[UploadedFile], kind: str) -> list[Certificate]:
    found: list[Certificate] = []
    for one in files:
        if one.kind == kind:
            with about(one.name):
                found += parse_bundle(one.path.read_bytes())
    return found


def _entries(dropped: ParsedUpload, now: datetime) -> Iterator[ManifestEntry | Certificate | BirthmarkError]:
    first = dropped.files[0].path
    names = {one.path.stem: one.name for one in dropped.files}

    def uploaded_name(path: Path) -> str:
        return names.get(path.stem, path.name)

    match dropped.kind:
        case UploadKind.CERTIFICATES if not dropped.roots:
            yield from _alone(dropped.files)
        case UploadKind.CERTIFICATES:
            for one in dropped.files:
                one.path.rename(one.path.with_suffix(".pem"))  # a certificate directory requires it
            yield from verify_list(first.parent, ListTrust(tuple(dropped.roots)), now, uploaded_name)
        case UploadKind.TABLE | UploadKind.ZIP:
            if not dropped.roots:
                detail = (
                    "it is not signed: only the manufacturer's CA certificates can prove that its certificates "
                    "are genuine"
                )
                raise DropRefusedError(detail=f"{detail}; upload them with it")
            path = first.with_suffix(".zip" if dropped.kind is UploadKind.ZIP else ".csv")
            first.rename(path)
            yield from verify_list(path, ListTrust(tuple(dropped.roots)), now, uploaded_name)
        case UploadKind.BUNDLE:
            trust = BundleTrust(tuple(dropped.signers), tuple(dropped.roots))
            with first.open("rb") as file:
                yield from verify_file(file, BundleVerifier(trust))
        case UploadKind.MANIFEST:
            yield from _of_manifest(first, dropped)


def _of_manifest(path: Path, dropped: ParsedUpload) -> Iterator[ManifestEntry | BirthmarkError]:
    """Yield the entries of a manifest on one CPU core, so that the others can serve."""
    signers = [signer_of(one) for one in dropped.signers] or MICROCHIP_SIGNERS.values()
    verifier = ManifestVerifier(trust_of(signers, [root_of(one) for one in dropped.roots] or MICROCHIP_ROOTS))
    once, place = DuplicateCheck(), 0
    with path.open("rb") as file:
        for piece in pieces_of(file, dropped.files[0].name):
            for raw in piece.entries():
                place += 1
                verdict: ManifestEntry | ManifestError
                try:
                    verdict = verifier.verify(place, raw)
                except ManifestError as error:
                    verdict = error
                yield once.check(verdict, place)


def _alone(files: Sequence[UploadedFile]) -> Iterator[Certificate | BirthmarkError]:
    """Yield device certificates on the authority of the uploading user, as `device enroll --cert` does."""
    for one in files:
        with one.path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        try:
            yield _device_in(data, one.name)
        except BirthmarkError as error:
            yield error


def _device_in(data: bytes, name: str) -> Certificate:
    if len(data) > MAX_FILE_BYTES:
        raise DropRefusedError(detail=f"{name} is larger than {MAX_FILE_BYTES // 1024} KiB, and no certificate")
    found = leaf_first(parse_bundle(data))
    leaf = found[0]
    is_plain = leaf.is_self_signed and leaf.extensions.key_usage is None  # device certificates of `openssl req -x509`
    if leaf.is_ca and not is_plain:
        raise DropRefusedError(detail=f"{name} is a CA's certificate, not a device's")
    if any(not one.is_ca for one in found[1:]):
        raise DropRefusedError(detail=f"{name} has several devices' certificates: give each a file of its own")
    return leaf


def _row(position: int, one: ManifestEntry | Certificate | BirthmarkError) -> Row:
    if isinstance(one, BirthmarkError):
        name = one.facts.get("unique_id") or ""
        return {
            "place": position,
            "device": str(name),
            "thumbprint": None,
            "says": "",
            "pem": None,
            "problem": told(one),
        }
    if isinstance(one, Certificate):
        name = one.subject_cn or one.subject_text
        row = {"place": position, "device": name, "thumbprint": one.thumbprint.hex(), "says": "", "pem": one.pem()}
        return row | {"problem": None}
    if one.unread is None:
        return _row(
            position, DropRefusedError(detail=f"the entry of {one.unique_id} has no certificate to enroll by")
        ) | {"device": one.device_id}
    row = {"place": position, "device": one.device_id, "thumbprint": one.unread.thumbprint.hex(), "says": one.signer}
    return row | {"pem": one.unread.pem(), "problem": None}
