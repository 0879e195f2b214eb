"""Why an entry of a manifest is not believed. Each names the entry by its place and, where known, its unique id."""

from typing import ClassVar

from birthmark.errors import BirthmarkError, InvalidRequestError
from birthmark.pki.certificate_checks import CertificateNonconformingError


class ManifestError(InvalidRequestError):
    """An entry that cannot be used; the others may be good."""

    code = "manifest.refused"
    for_a_person: ClassVar[str | None] = "the supplier has to be asked"
    place: int = 0
    """Its number in the file, 1 for the first; whoever counts adds it."""


class MalformedEntryError(ManifestError):
    """Not the format."""

    code = "manifest.malformed"
    message = "Entry {place}: {detail}"
    cause = "Entry {place} is not one of a manifest: {detail}."
    fix = "Use the file as the supplier delivered it{hint}."
    detail: str
    hint: str = ""
    """What else helps, where that is known."""

    def explain_apart(self) -> tuple[str, str]:
        """Return cause and fix, with the commands of the hint: where a name in it has a backtick, they are none."""
        cause, fix = super().explain_apart()
        is_whole = all(part.count("'") % 2 == 0 for part in self.hint.split("`"))
        return cause, self.explain_fix() if is_whole else fix


class ListUnsignedError(ManifestError):
    """Nobody says that the list is genuine."""

    code = "manifest.list_unsigned"
    message = "Nobody signed this list"
    cause = "Nobody signed {file}: that a certificate in it is genuine, only its maker's root can say."
    fix = "Name the maker's CA certificates, PEM: `{again} --trust-root maker-ca.pem`"
    for_a_person = None
    again: str = "?"
    file: str


class PackedManifestError(ManifestError):
    """The file is an archive or compressed."""

    code = "manifest.packed"
    message = "The file is packed by {form}"
    cause = "{file} is packed by {form}; how much it unpacks to is nobody's promise, so that is left to you."
    fix = "Unpack it, and name what came out: `{unpack} {file}`"
    for_a_person = None
    form: str
    file: str
    unpack: str


class UnknownSignerError(ManifestError):
    """Signed by nobody who is trusted."""

    code = "manifest.signer_unknown"
    message = "Entry {place}: unknown signer"
    cause = "Entry {place} names a signer certificate ({thumbprint}) that is not among the accepted ones."
    fix = "If you trust the supplier, give its signer certificate with `--signer FILE`."
    for_a_person = None
    thumbprint: str


class StationUnknownError(ManifestError):
    """Signed by a station that nobody named."""

    code = "manifest.station_unknown"
    message = "Entry {place}: unknown station"
    cause = "Entry {place} is of station '{station}' (certificate {thumbprint}), which is not among the accepted ones."
    fix = (
        "If it is yours, compare that with the station's own certificate "
        "(`openssl x509 -in station.pem -outform DER | sha256sum`) and give it with `--station FILE`."
    )
    for_a_person = None
    station: str
    thumbprint: str


class NotWholeError(ManifestError):
    """A bundle without its end."""

    code = "manifest.not_whole"
    message = "After entry {place}: the bundle of station '{station}' is not whole"
    cause = "The bundle of station '{station}' is not whole after entry {place}: {detail}."
    fix = (
        "Have the station hand over its own file again: what was changed on the way is not believed. Where it is not "
        "sealed there: `birthmark chip intake --seal --station {station}`"
    )
    for_a_person = None
    detail: str
    station: str


class SignatureBrokenError(ManifestError):
    """The signed bytes were changed, or the signature is another's."""

    code = "manifest.signature_broken"
    message = "Entry {place}: the signature is broken"
    cause = "The signature of entry {place} ({unique_id}) does not verify with the key of {signer}."
    fix = "The file was changed after it was signed: fetch it again from the supplier."
    signer: str
    unique_id: str


class SignerNotValidError(ManifestError):
    """Signed at a time when the signer was not valid."""

    code = "manifest.signer_not_valid_then"
    message = "Entry {place}: signer not valid then"
    cause = "Entry {place} was provisioned at {provisioned_at}; its signer {signer} was not valid then."
    fix = "Ask the supplier for a manifest by the signer of that time."
    provisioned_at: str
    signer: str


class UniqueIdChangedError(ManifestError):
    """The unprotected header names another chip than the signed payload."""

    code = "manifest.unique_id_changed"
    message = "Entry {place}: the header was changed"
    cause = "The header of entry {place} says {header_id}, the signed payload {unique_id}: the header was changed."
    fix = "The header is not signed; trust only the payload, and fetch the file again from the supplier."
    header_id: str
    unique_id: str


class DuplicateEntryError(ManifestError):
    """The same chip twice."""

    code = "manifest.duplicate"
    message = "Entry {place}: chip seen before"
    cause = "Entry {place}, {what} {unique_id}: {detail}."
    fix = "Remove one of them; if they differ, ask the supplier."
    detail: str = "an entry before it names the same one"
    unique_id: str
    what: str = "chip"


class NameMismatchError(ManifestError):
    """The certificate is another chip's."""

    code = "manifest.name_mismatch"
    message = "Entry {place}: another chip's certificate"
    cause = "The certificate of entry {place} is for {common_name}; the entry is for {unique_id}."
    fix = "Ask the supplier: entry and certificate were mixed up."
    common_name: str
    unique_id: str


class KeyMismatchError(ManifestError):
    """The certificate has another key than the entry lists."""

    code = "manifest.key_mismatch"
    message = "Entry {place}: another key"
    cause = "The key in the certificate of entry {place} ({unique_id}) is not the key {of}."
    fix = "Ask the supplier: entry and certificate were mixed up."
    of: str = "the entry lists for slot 0"
    unique_id: str


class NotCheckedError(ManifestError):
    """Signed by the supplier, with a key that nobody here can compare with a certificate."""

    code = "manifest.not_checked"
    message = "Entry {place}: unknown key"
    cause = (
        "Of entry {place} ({unique_id}) signature, signer and header are in order; key, certificate and chain were not "
        "checked: {detail}."
    )
    fix = (
        "Enroll the chip by the certificate that it holds itself, where it is at hand: "
        "`birthmark chip cert --out chip.pem && birthmark device enroll --cert chip.pem`."
    )
    for_a_person = None
    detail: str
    unique_id: str


class ChainBrokenError(ManifestError):
    """The device certificate does not lead to the supplier's root."""

    code = "manifest.chain_broken"
    message = "Entry {place}: {detail}"
    cause = "The certificate of entry {place} ({unique_id}) does not lead to an accepted root: {detail}."
    fix = (
        "If you trust the supplier, give its root certificate, and CAs that the list has not, with `--trust-root FILE`."
    )
    for_a_person = None
    detail: str
    unique_id: str

    @classmethod
    def by(cls, error: BirthmarkError, unique_id: str) -> "ChainBrokenError":
        """Return it for an error of a chain. Another root does not fix a certificate that RFC 5280 forbids."""
        refusal = cls(detail=error.explain_cause().rstrip("."), unique_id=unique_id)
        if isinstance(error, CertificateNonconformingError):
            refusal.quote(fix="Ask the supplier to reissue that certificate. A CA keeps its name and its key.")
        return refusal
