"""An open secure element: its objects, keys and certificates, and permitted writes.

Keys are used and generated, never read. Factory objects are never replaced: keys not at all, certificates only by one
for the same key.
"""

import contextlib
import re
from dataclasses import dataclass
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pkcs11 import exceptions as p11
from pkcs11.constants import Attribute, ObjectClass
from pkcs11.util.x509 import decode_x509_certificate

from birthmark.keys.cryptography_key_adapter import as_private_key
from birthmark.keys.errors import KeyNotFoundError
from birthmark.keys.pkcs11_key import TokenKey, cut_der
from birthmark.keys.pkcs11_token import Pkcs11Token, TokenInfo, bytes_of, text_of
from birthmark.keys.se050_labels import ids_of, is_same_label, label_of, object_id_of
from birthmark.keys.se050_reference_keys import render_reference_key
from birthmark.pki.certificates import Certificate, CertificateInvalidError, parse_der
from birthmark.pki.issuance import hash_for
from birthmark.pki.names_and_registration_ids import name_of
from birthmark.secure_elements.chip_profiles import Algorithm, ChipProfile, profile_of
from birthmark.secure_elements.dps_assignment_codec import (
    Assignment,
    AssignmentMemory,
    Layout,
    is_blank,
    read_memory,
    write_memory,
)
from birthmark.secure_elements.errors import (
    ElementCertificateMismatchError,
    ElementCertificateMissingError,
    ElementDataMissingError,
    ElementDataOccupiedError,
    ElementDataTooLargeError,
    ElementKeyExistsError,
    ElementMemoryInvalidError,
    ElementNoMemoryError,
    ElementNotReferableError,
    SelectorInvalidError,
)
from birthmark.secure_elements.token_object_management import (
    KINDS,
    ElementObject,
    certificate_label,
    class_of,
    describe,
    generate,
    guess,
    identity_label,
)

_OBJECT_ID = re.compile(r"(?:0[xX])?([0-9A-Fa-f]{8})")
_KEY_ID = re.compile(r"id:((?:[0-9A-Fa-f]{2}){1,64})")
MAX_LABEL_CHARS = 255


@dataclass(frozen=True, slots=True)
class Selector:
    """A label (for SE050 objects in either byte order) or a CKA_ID.

    Without either, it selects the only key or the identity key.
    """

    label: str | None = None
    key_id: bytes | None = None

    @property
    def object_id(self) -> int | None:
        return None if self.label is None else object_id_of(self.label)


def parse_selector(text: str | None) -> Selector:
    """Return the selector. Raise `SelectorInvalidError`. Eight hex digits are an NXP object id, never a label."""
    if text is None:
        return Selector()
    if (found := _KEY_ID.fullmatch(text)) is not None:
        return Selector(key_id=bytes.fromhex(found[1]))
    if (found := _OBJECT_ID.fullmatch(text)) is not None:
        return Selector(label=label_of(int(found[1], 16)))
    if not text.isprintable() or not 0 < len(text) <= MAX_LABEL_CHARS or text.startswith("id:"):
        raise SelectorInvalidError(text=text[:40])
    return Selector(label=text)


class Element:
    """An open secure element; close it or use it in a `with`. Handles from `key` stay open with the element."""

    def __init__(self, token: Pkcs11Token, profile: ChipProfile | None = None) -> None:
        """Take ownership of an open token; its label determines the profile unless given."""
        self.token = token
        self.profile = profile or profile_of(token.info.label)

    @property
    def info(self) -> TokenInfo:
        return self.token.info

    def close(self) -> None:
        self.token.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- reading

    def objects(self) -> tuple[ElementObject, ...]:
        """Return all objects that are visible with this PIN, keys first."""
        order = list(KINDS.values())
        with self.token.session() as session:
            classes = [(item, class_of(item)) for item in session.get_objects()]
            found = [describe(item, of_class) for item, of_class in classes if of_class in KINDS]
        return tuple(sorted(found, key=lambda item: (order.index(item.kind), item.label, item.key_id)))

    def key(self, selector: str | None = None) -> TokenKey:
        """Return the named key, otherwise the identity key of this element type, or the only key."""
        wanted = self._wanted(selector)
        try:
            return TokenKey.find(self.token, label=wanted.label, key_id=wanted.key_id)
        except KeyNotFoundError:
            if wanted.object_id is None or not wanted.object_id & 1:
                raise
            # NXP: a certificate's object id is its key's with the last bit set; users specify either.
            with contextlib.suppress(KeyNotFoundError):
                return TokenKey.find(self.token, label=label_of(wanted.object_id & ~1))
            raise

    def certificate(self, selector: str | None = None) -> Certificate:
        """Return the certificate of the named key. Raise `ElementCertificateMissingError`."""
        key = self.key(selector)
        of_key = [(label, found) for label, found in self._certificates() if found.public_key() == key.public_key]
        wanted = certificate_label(key)
        for label, found in of_key:
            if is_same_label(wanted, label):
                return found
        if of_key:
            return of_key[0][1]
        raise ElementCertificateMissingError(token=self.info.label, key=key.label or f"id:{key.key_id.hex()}")

    def get_stored_certificate(self, selector: str | None = None) -> Certificate:
        """Return the certificate stored with the key, even if it belongs to another key.

        Programs that use labels read the same one, and a replaced certificate is detected. Raise
        `ElementCertificateMissingError`.
        """
        wanted = certificate_label(self.key(selector))
        for label, found in self._certificates():
            if is_same_label(wanted, label):
                return found
        return self.certificate(selector)

    def chain(self, selector: str | None = None) -> tuple[Certificate, ...]:
        """Return the key's certificate followed by its issuers in the element."""
        return self.with_issuers(self.certificate(selector))

    def with_issuers(self, certificate: Certificate) -> tuple[Certificate, ...]:
        """Return a certificate followed by its issuers in the element."""
        chain = [certificate]
        others = [found for _label, found in self._certificates()]
        while not chain[-1].is_self_signed:
            above = [found for found in others if found.subject == chain[-1].issuer and found not in chain]
            if not above:
                break
            chain.append(above[0])
        return tuple(chain)

    def reference_key(self, selector: str | None = None) -> str:
        """Return the reference key in PEM for programs that only accept key files.

        Raise `ElementNotReferableError`.
        """
        key = self.key(selector)
        object_id = object_id_of(key.label)
        if object_id is None:
            raise ElementNotReferableError(key=f"'{key.label or key.key_id.hex()}'")
        return render_reference_key(key.public_key, object_id)

    def csr(self, common_name: str, selector: str | None = None) -> bytes:
        """Return a certificate request in DER for `common_name`, signed in the chip."""
        signing_key = as_private_key(self.key(selector))
        builder = x509.CertificateSigningRequestBuilder(name_of(common_name))
        return builder.sign(signing_key, hash_for(signing_key)).public_bytes(Encoding.DER)

    # ---- writing

    def generate_key(self, label: str, algorithm: Algorithm, key_id: bytes | None = None) -> TokenKey:
        """Generate a key in the element. Raise `ElementKeyExistsError`; keys are never replaced."""
        label = parse_selector(label).label or label
        object_id = object_id_of(label)
        if key_id is None and object_id is not None:
            key_id = ids_of(object_id)[0]
        with contextlib.suppress(KeyNotFoundError):
            TokenKey.find(self.token, label=label)
            raise ElementKeyExistsError(token=self.info.label, label=label)
        with self.token.session() as session:
            generate(session, label, algorithm, key_id)
        return TokenKey.find(self.token, label=label)

    def write_certificate(
        self, certificate: Certificate, selector: str | None = None, *, label: str | None = None
    ) -> str:
        """Store a certificate with its key, or a CA's under `label`; one with the same label is replaced.

        Return the label. Raise `ElementCertificateMismatchError` for a certificate of another key.
        """
        key_id = b""
        if label is None:
            key = self.key(selector)
            if key.public_key != certificate.public_key():
                raise ElementCertificateMismatchError(
                    subject=certificate.subject_text, key=key.label or f"id:{key.key_id.hex()}"
                )
            label, key_id = certificate_label(key), key.key_id
        template: dict[Attribute, Any] = decode_x509_certificate(certificate.der)
        template |= {Attribute.TOKEN: True, Attribute.PRIVATE: False, Attribute.LABEL: label}
        if key_id:
            template[Attribute.ID] = key_id
        self._replace(ObjectClass.CERTIFICATE, label, template)
        return label

    def read_data(self, label: str) -> bytes:
        """Return a data object. Raise `ElementDataMissingError`."""
        values = self._data(label)
        if not values:
            raise ElementDataMissingError(token=self.info.label, label=label)
        return values[-1]

    def write_data(self, label: str, value: bytes, *, may_replace: bool = False) -> None:
        """Store a data object in place of a blank one or, with `may_replace`, of any with the same label.

        Raise `ElementDataTooLargeError` or `ElementDataOccupiedError`.
        """
        limit = self.profile.memory_bytes or len(value)
        if len(value) > limit:
            raise ElementDataTooLargeError(size=len(value), limit=limit, label=label)
        for before in self._data(label):
            if not may_replace and before != value and not is_blank(before):
                raise self._occupied(label, before)
        template = {
            Attribute.CLASS: ObjectClass.DATA,
            Attribute.TOKEN: True,
            Attribute.PRIVATE: False,
            Attribute.LABEL: label,
            Attribute.APPLICATION: "birthmark",
            Attribute.VALUE: value,
        }
        self._replace(ObjectClass.DATA, label, template)

    # ---- memory

    def recall(self) -> Assignment | None:
        """Return the stored assignment, or None. Raise `ElementMemoryInvalidError` for foreign data."""
        return self.memory().assignment

    def memory(self) -> AssignmentMemory:
        """Return the assignment memory with its layout. Raise `ElementMemoryInvalidError`."""
        copies = [read_memory(raw) for raw in self._data(self._memory_label())]
        return max(copies, key=lambda copy: (copy.layout is not None, copy.counter), default=AssignmentMemory())

    def check_memory(self, layout: Layout | None = None, device: str | None = None) -> AssignmentMemory:
        """Return the memory that may be overwritten as `device`, in the existing or the requested layout.

        Raise `ElementDataOccupiedError` for foreign data: another layout, or a how-to firmware with another
        registration ID.
        """
        label = self._memory_label()
        copies = self._data(label)
        try:
            found = self.memory()
        except ElementMemoryInvalidError as error:
            raise self._occupied(label, copies[-1]) from error
        is_other_layout = found.layout is not None and layout not in (None, found.layout)
        if is_other_layout or (found.layout is Layout.HOWTO and device not in (None, found.device)):
            raise self._occupied(label, copies[-1])
        return found

    def remember(self, assignment: Assignment, layout: Layout | None = None, *, may_replace: bool = False) -> None:
        """Write the assignment to the element, in the given, the existing, or Birthmark's layout.

        Raise `ElementDataOccupiedError` for foreign data unless `may_replace` is set.
        """
        label, before = self._memory_label(), AssignmentMemory()
        if not may_replace:
            before = self.check_memory(layout, assignment.device)
        else:
            with contextlib.suppress(ElementMemoryInvalidError):
                before = self.memory()
        limit = self.profile.memory_bytes
        try:
            raw = write_memory(assignment, layout or before.layout or Layout.BIRTHMARK, before, limit, label)
        except ElementDataTooLargeError as error:
            raise ElementNoMemoryError(profile=self.profile.name) from error
        self.write_data(label, raw, may_replace=True)

    def _occupied(self, label: str, held: bytes) -> ElementDataOccupiedError:
        return ElementDataOccupiedError(token=self.info.label, label=label, held=guess(held), size=len(held))

    def _memory_label(self) -> str:
        if self.profile.memory_label is None:
            raise ElementNoMemoryError(profile=self.profile.name)
        return self.profile.memory_label

    # ---- inside

    def _wanted(self, selector: str | None) -> Selector:
        if selector is not None or not self.profile.keys:
            return parse_selector(selector)
        if not self.profile.identities:
            return Selector(label=self.profile.keys[0].label)
        with self.token.session() as session:
            return Selector(label=identity_label(session, self.profile.identities))

    def _certificates(self) -> tuple[tuple[str, Certificate], ...]:
        out = []
        with self.token.session() as session:
            for item in session.get_objects({Attribute.CLASS: ObjectClass.CERTIFICATE}):
                with contextlib.suppress(CertificateInvalidError, ValueError):  # skip invalid certificates
                    out.append((text_of(item, Attribute.LABEL), parse_der(cut_der(bytes_of(item, Attribute.VALUE)))))
        return tuple(out)

    def _data(self, label: str) -> list[bytes]:
        with self.token.session() as session:
            wanted = {Attribute.CLASS: ObjectClass.DATA, Attribute.LABEL: label}
            return [bytes_of(item, Attribute.VALUE) for item in session.get_objects(wanted)]

    def _replace(self, kind: ObjectClass, label: str, template: dict[Attribute, Any]) -> None:
        """Write the new object before deleting the old one: a power failure leaves two objects, not none."""
        with self.token.session() as session:
            old = list(session.get_objects({Attribute.CLASS: kind, Attribute.LABEL: label}))
            try:
                session.create_object(template)
            except p11.AttributeValueInvalid:  # tpm2-pkcs11 requires the PIN for data
                session.create_object(template | {Attribute.PRIVATE: True})
            for item in old:
                item.destroy()
