"""Token objects: creation, naming and description."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pkcs11
from pkcs11 import exceptions as p11
from pkcs11.constants import Attribute, ObjectClass
from pkcs11.mechanisms import KeyType
from pkcs11.util.ec import encode_named_curve_parameters

from birthmark.keys.pkcs11_key import TokenKey, cut_der
from birthmark.keys.pkcs11_token import bytes_of, text_of
from birthmark.keys.se050_labels import label_of, object_id_of, swapped
from birthmark.pki.certificates import CertificateInvalidError, parse_der
from birthmark.secure_elements.chip_profiles import Algorithm, KeySlot
from birthmark.secure_elements.dps_assignment_codec import Layout, is_blank, read_memory
from birthmark.secure_elements.errors import ElementMemoryInvalidError
from birthmark.untrusted_json_and_text import decode_json, printable

_MAX_SHOWN_CHARS = 60
_SEQUENCE = 0x30


def guess(raw: bytes) -> str:
    """Return a short description; never the bytes themselves, which may be secret."""
    if is_blank(raw):
        return "blank"
    try:
        found = read_memory(raw)
    except ElementMemoryInvalidError:
        return _another(raw)
    device, hub = (printable(text[:_MAX_SHOWN_CHARS]) for text in (found.device, found.hub))
    if found.layout is Layout.HOWTO:
        return f"the how-to's layout: serial {device}, " + (f"hub {hub}" if hub else "no hub yet")
    return f"Birthmark's layout: device {device} at {hub}"


def _another(raw: bytes) -> str:
    if raw[0] == _SEQUENCE:
        try:
            subject = parse_der(cut_der(raw)).subject_text
        except (CertificateInvalidError, ValueError):
            pass
        else:
            return f"certificate of {printable(subject[:_MAX_SHOWN_CHARS])}"
    text = raw.rstrip(b"\0\xff")
    if text.startswith(b"-----BEGIN "):
        return "PEM"
    try:
        decode_json(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "text" if text.isascii() and text.decode("ascii").strip().isprintable() else "bytes of another program"
    return "JSON"


_CURVES = {Algorithm.P256: "secp256r1", Algorithm.P384: "secp384r1"}
_RSA_BITS = {Algorithm.RSA2048: 2048, Algorithm.RSA3072: 3072, Algorithm.RSA4096: 4096}
KINDS = {
    ObjectClass.PRIVATE_KEY: "private key",
    ObjectClass.PUBLIC_KEY: "public key",
    ObjectClass.CERTIFICATE: "certificate",
    ObjectClass.DATA: "data",
}
_IDENTITY_KINDS = (KeyType.EC, KeyType.RSA)
# Set sensitive and not extractable explicitly, because token defaults differ.
_GUARDED = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.PRIVATE: True}
# tpm2-pkcs11 sets EC key usage itself, and rejects a different template.
_AS_A_TPM: Mapping[str, Any] = {
    "public_template": {Attribute.VERIFY: None, Attribute.ENCRYPT: True, Attribute.WRAP: None},
    "private_template": {**_GUARDED, **dict.fromkeys((Attribute.DECRYPT, Attribute.UNWRAP, Attribute.DERIVE))},
}


@dataclass(frozen=True, slots=True)
class ElementObject:
    """Description of one object.

    `detail` is a key's type, a certificate's subject, or data's size and probable content.
    """

    kind: str
    label: str
    key_id: str
    object_id: str | None
    detail: str
    is_guarded: bool | None  # private keys: sensitive and not extractable; None if not reported


def certificate_label(key: TokenKey) -> str:
    """Return the label of the certificate of a key.

    NXP: the certificate's object ID is the key's with the last bit set. Other tokens: both have the same label.
    """
    object_id = object_id_of(key.label)
    if object_id is None:
        return key.label
    is_swapped = not key.label.upper().endswith(f"{object_id:08X}")
    return label_of(swapped(object_id | 1)) if is_swapped else label_of(object_id | 1)


def generate(session: pkcs11.Session, label: str, algorithm: Algorithm, key_id: bytes | None) -> None:
    if algorithm in _CURVES:
        curve = {Attribute.EC_PARAMS: encode_named_curve_parameters(_CURVES[algorithm])}
        parameters = session.create_domain_parameters(KeyType.EC, curve, local=True)
        try:
            parameters.generate_keypair(store=True, label=label, id=key_id, private_template=_GUARDED)
        except p11.GeneralError:
            parameters.generate_keypair(store=True, label=label, id=key_id, **_AS_A_TPM)
        return
    bits = _RSA_BITS[algorithm]
    session.generate_keypair(KeyType.RSA, bits, store=True, label=label, id=key_id, private_template=_GUARDED)


def destroy(session: pkcs11.Session, label: str) -> None:
    """Destroy a key pair, the private key first: an interruption leaves no usable key."""
    for kind in (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY):
        for item in list(session.get_objects({Attribute.CLASS: kind, Attribute.LABEL: label})):
            item.destroy()


def has_key(session: pkcs11.Session, label: str) -> bool:
    """Return whether a private key with this label exists."""
    wanted = {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.LABEL: label}
    return bool(list(session.get_objects(wanted)))


def identity_label(session: pkcs11.Session, candidates: Sequence[KeySlot]) -> str | None:
    """Return the label of the existing identity key, EC before RSA; None if there is none.

    The element reports the key type; an object ID does not determine it.
    """
    places = [slot.object_id for slot in candidates]
    found = []
    keys: list[Any] = list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY}))
    for item in keys:
        label = text_of(item, Attribute.LABEL)
        if (object_id := object_id_of(label)) in places and item.key_type in _IDENTITY_KINDS:
            found.append((_IDENTITY_KINDS.index(item.key_type), places.index(object_id), label))
    return min(found, default=(0, 0, None))[2]


def class_of(item: Any) -> ObjectClass | None:
    """Return the object class, which the library exposes only for keys and certificates; None if unknown."""
    try:
        return ObjectClass(item.object_class or item[Attribute.CLASS])
    except (p11.PKCS11Error, ValueError):
        return None


def describe(item: Any, of_class: ObjectClass) -> ElementObject:
    label, key_id = text_of(item, Attribute.LABEL), bytes_of(item, Attribute.ID)
    object_id = object_id_of(label)
    kind = KINDS[of_class]
    return ElementObject(
        kind=kind,
        label=label,
        key_id=key_id.hex(),
        object_id=None if object_id is None else f"0x{object_id:08X}",
        detail=_detail(item, of_class),
        is_guarded=_is_guarded(item) if kind == "private key" else None,
    )


def _detail(item: Any, of_class: ObjectClass) -> str:
    match of_class:
        case ObjectClass.CERTIFICATE:
            try:
                return parse_der(cut_der(bytes_of(item, Attribute.VALUE))).subject_text
            except (CertificateInvalidError, ValueError):
                return "not readable"
        case ObjectClass.DATA:
            raw = bytes_of(item, Attribute.VALUE)
            return f"{len(raw)} bytes, {guess(raw)}"
        case _:
            return _key_kind(item)


def _key_kind(item: Any) -> str:
    if item.key_type is KeyType.RSA:
        return f"RSA {len(bytes_of(item, Attribute.MODULUS)) * 8}"
    if item.key_type is not KeyType.EC:
        return str(getattr(item.key_type, "name", item.key_type))
    raw = bytes_of(item, Attribute.EC_PARAMS)
    for name, curve in (("P-256", "secp256r1"), ("P-384", "secp384r1"), ("P-521", "secp521r1")):
        if raw == encode_named_curve_parameters(curve):
            return f"EC {name}"
    return "EC"


def _is_guarded(item: Any) -> bool | None:
    try:
        return bool(item[Attribute.SENSITIVE]) and not item[Attribute.EXTRACTABLE]
    except p11.PKCS11Error:
        return None
