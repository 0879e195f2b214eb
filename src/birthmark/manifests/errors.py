"""Errors of manifest entries, with the entry's number and, where known, its unique id."""

from typing import ClassVar

from birthmark.errors import BirthmarkError, InvalidRequestError
from birthmark.pki.single_certificate_checks import CertificateNonconformingError


class ManifestError(InvalidRequestError):
    """An entry that cannot be used; other entries may be valid."""

    code = "manifest.refused"
    for_a_person: ClassVar[str | None] = "only the supplier can correct the list"
    place: int = 0
    """Entry number in the file, from 1; the caller that counts sets it."""


class MalformedEntryError(ManifestError):
    """The entry is malformed."""

    code = "manifest.malformed"
    message = "Entry {place}: {detail}"
    cause = "Entry {place} is not a valid manifest entry: {detail}."
    fix = "Use the file as delivered by the supplier{hint}."
    detail: str
    hint: str = ""
    """Further advice, where available."""

    def explain_for_display(self) -> tuple[str, str]:
        """Return cause and fix, with the hint's commands; without them if a name in it has a backtick."""
        cause, fix = super().explain_for_display()
        is_whole = all(part.count("'") % 2 == 0 for part in self.hint.split("`"))
        return cause, self.explain_fix() if is_whole else fix


class ListUnsignedError(ManifestError):
    """The list is not signed."""

    code = "manifest.list_unsigned"
    message = "The list is not signed"
    cause = (
        "{file} is not signed. Only the manufacturer's root can prove that the certificates in this file are genuine."
    )
    fix = "Pass the manufacturer's CA certificates in PEM format: `{again} --trust-root maker-ca.pem`"
    for_a_person = None
    again: str = "?"
    file: str


class PackedManifestError(ManifestError):
    """The file is an archive or compressed."""

    code = "manifest.packed"
    message = "The file is compressed with {form}"
    cause = (
        "{file} is compressed with {form}. Because the unpacked size is unknown, the file is not unpacked "
        "automatically."
    )
    fix = "Unpack the file: `{unpack} {file}`. Then pass the unpacked file."
    for_a_person = None
    form: str
    file: str
    unpack: str


class UnknownSignerError(ManifestError):
    """The signer is not trusted."""

    code = "manifest.signer_unknown"
    message = "Entry {place}: unknown signer"
    cause = "Entry {place} refers to a signer certificate ({thumbprint}) that is not an accepted signer certificate."
    fix = "If you trust the supplier, pass its signer certificate with `--signer FILE`."
    for_a_person = None
    thumbprint: str


class StationUnknownError(ManifestError):
    """The station is not among the accepted ones."""

    code = "manifest.station_unknown"
    message = "Entry {place}: unknown station"
    cause = "Entry {place} is from station '{station}' (certificate {thumbprint}), which is not an accepted station."
    fix = (
        "If the station is yours, compare the thumbprint with the station's certificate (`openssl x509 -in "
        "station.pem -outform DER | sha256sum`), and then pass the certificate with `--station FILE`."
    )
    for_a_person = None
    station: str
    thumbprint: str


class NotWholeError(ManifestError):
    """The bundle is incomplete."""

    code = "manifest.not_whole"
    message = "The bundle of station '{station}' is incomplete after entry {place}"
    cause = "The bundle of station '{station}' is incomplete after entry {place}: {detail}."
    fix = (
        "Get the original file from the station again; changed files are rejected. If the bundle is not sealed, seal "
        "it: `birthmark chip intake --seal --station {station}`"
    )
    for_a_person = None
    detail: str
    station: str


class SignatureBrokenError(ManifestError):
    """The signed data was changed, or the signature belongs to other data."""

    code = "manifest.signature_broken"
    message = "Entry {place}: the signature is not valid"
    cause = "The signature of entry {place} ({unique_id}) does not verify with the key of {signer}."
    fix = "The file was changed after it was signed. Download it again from the supplier."
    signer: str
    unique_id: str


class SignerNotValidError(ManifestError):
    """The signer was not valid when it signed."""

    code = "manifest.signer_not_valid_then"
    message = "Entry {place}: the signer was not valid at the provisioning time"
    cause = "Entry {place} was provisioned at {provisioned_at}, when its signer {signer} was not valid."
    fix = "Ask the supplier for a manifest from a signer that was valid at that time."
    provisioned_at: str
    signer: str


class UniqueIdChangedError(ManifestError):
    """The unprotected header and the signed payload have different chip IDs."""

    code = "manifest.unique_id_changed"
    message = "Entry {place}: the header was changed"
    cause = (
        "The header of entry {place} has the ID {header_id}, but the signed payload has the ID {unique_id}. The "
        "header was changed."
    )
    fix = "The header is not signed. Trust only the payload, and download the file again from the supplier."
    header_id: str
    unique_id: str


class DuplicateEntryError(ManifestError):
    """The chip is listed twice."""

    code = "manifest.duplicate"
    message = "Entry {place}: duplicate chip"
    cause = "Entry {place} ({what} {unique_id}) is a duplicate: {detail}."
    fix = "Remove one of the two entries. If the entries differ, ask the supplier."
    detail: str = "an earlier entry has the same one"
    unique_id: str
    what: str = "chip"


class NameMismatchError(ManifestError):
    """The certificate belongs to another chip."""

    code = "manifest.name_mismatch"
    message = "Entry {place}: the certificate belongs to another chip"
    cause = "The certificate of entry {place} is for {common_name}, but the entry is for {unique_id}."
    fix = "Contact the supplier: the entry and the certificate do not match."
    common_name: str
    unique_id: str


class KeyMismatchError(ManifestError):
    """The certificate's key differs from the entry's key."""

    code = "manifest.key_mismatch"
    message = "Entry {place}: the key does not match"
    cause = "The key in the certificate of entry {place} ({unique_id}) is not the key {of}."
    fix = "Contact the supplier: the entry and the certificate do not match."
    of: str = "the entry lists for slot 0"
    unique_id: str


class NotCheckedError(ManifestError):
    """The entry is signed by the supplier, but its key cannot be verified."""

    code = "manifest.not_checked"
    message = "Entry {place}: the key cannot be verified"
    cause = (
        "The signature, signer and header of entry {place} ({unique_id}) are valid. The key, certificate and chain "
        "were not checked: {detail}."
    )
    fix = (
        "If you have the chip, enroll it with its own certificate: `birthmark chip cert --out chip.pem &&"
        " birthmark device enroll --cert chip.pem`."
    )
    for_a_person = None
    detail: str
    unique_id: str


class ChainBrokenError(ManifestError):
    """The device certificate does not chain to the supplier's root."""

    code = "manifest.chain_broken"
    message = "Entry {place}: {detail}"
    cause = "The certificate of entry {place} ({unique_id}) does not chain to an accepted root: {detail}."
    fix = (
        "If you trust the supplier, pass its root certificate, and any CA certificates missing from the list, with "
        "`--trust-root FILE`."
    )
    for_a_person = None
    detail: str
    unique_id: str

    @classmethod
    def by(cls, error: BirthmarkError, unique_id: str) -> "ChainBrokenError":
        """Return this error for a chain error.

        Another root does not fix a certificate that RFC 5280 forbids.
        """
        refusal = cls(detail=error.explain_cause().rstrip("."), unique_id=unique_id)
        if isinstance(error, CertificateNonconformingError):
            refusal.quote(fix="Ask the supplier to reissue that certificate. A CA must keep its name and its key.")
        return refusal
