"""An ATECC608 with the token interface of python-pkcs11, through chip commands and without a PKCS#11 library.

Its slots appear as the objects that Microchip's own PKCS#11 library shows, under the same names.

    private and public key `device`      slot 0
    private and public keys `slot2` …    slots 2, 3, 4, which `chip keygen` generates once
    certificate `device`, `signer`       slots 10 and 12, compressed, reconstructed here
    data `slot8`                         416 bytes

Only the python-pkcs11 interface that elements need is implemented: attributes, search, sign, create, destroy.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from asn1crypto import core
from pkcs11 import exceptions as p11
from pkcs11.constants import Attribute, ObjectClass
from pkcs11.mechanisms import KeyType, Mechanism
from pkcs11.util.ec import encode_named_curve_parameters

from birthmark.keys.errors import KeyUnsupportedError, TokenFailedError, TokenNotFoundError
from birthmark.keys.pkcs11_library_lifecycle import LOCK
from birthmark.keys.pkcs11_token import Pkcs11Token, TokenInfo, translated
from birthmark.pki.certificates import CertificateInvalidError
from birthmark.secure_elements.atecc.certificates import ChipCertificates
from birthmark.secure_elements.atecc.chip import NAME, AteccChip, ChipAddress
from birthmark.secure_elements.atecc.simulator import SLOT_BYTES

LABEL = "00ABC"
IDENTITY, DATA_SLOT = 0, 8
_SECONDARY = (2, 3, 4)
_KEYS = {IDENTITY: "device", **{slot: f"slot{slot}" for slot in _SECONDARY}}
_CURVE = encode_named_curve_parameters("secp256r1")
_MODELS = {b"\x60\x02": "ATECC608A", b"\x60\x03": "ATECC608B", b"\x60\x04": "ATECC608C"}


@dataclass(slots=True)
class AteccToken(Pkcs11Token):
    """ATECC608 token; one per process, as the library supports one device."""

    _atecc: "AteccSession | None" = field(default=None, repr=False)

    @classmethod
    def at(cls, module: Path, *, label: str | None = None, slot_id: int | None = None) -> Self:
        """Open the chip of a `cryptoauthlib…` address. Raise `TokenNotFoundError` for another label or slot."""
        place = ChipAddress.parse(module)
        if place is None or label not in (None, LABEL) or slot_id not in (None, 0):
            wanted = f"label '{label}', slot {slot_id}"
            raise TokenNotFoundError(wanted=wanted, found=f"'{LABEL}' in slot 0 ({place})")
        with LOCK:
            chip = AteccChip.open(place)
            no_library: Any = None
            return cls(_info(chip), module, no_library, _atecc=AteccSession(chip))

    def close(self) -> None:
        """Release the chip; closing twice is a no-op."""
        with LOCK:
            if self._is_open and self._atecc is not None:
                self._atecc.chip.close()
            self._is_open = False

    @contextlib.contextmanager
    def session(self) -> Iterator[Any]:
        """Hold exclusive access to the chip."""
        with LOCK, translated(self.info.label):
            if not self._is_open:
                raise TokenFailedError(detail="the session has been closed")
            yield self._atecc


def is_atecc(module: Path) -> bool:
    """Return whether this names a chip behind cryptoauthlib, not a PKCS#11 library."""
    return str(module).split(":", 1)[0] == NAME


def list_atecc(module: Path) -> tuple[TokenInfo, ...]:
    """Return the only chip."""
    with AteccToken.at(module) as token:
        return (token.info,)


def _info(chip: AteccChip) -> TokenInfo:
    model = _MODELS.get(chip.revision()[2:], "ATECC608")
    return TokenInfo(
        label=LABEL,
        manufacturer="Microchip Technology Inc",
        model=model,
        serial=chip.serial().hex().upper(),
        slot_id=0,
        is_initialized=True,
        needs_pin=False,
    )


@dataclass(slots=True)
class _Object:
    """An object by its attributes; `slot` is its location."""

    chip: AteccChip
    slot: int
    attributes: Mapping[Attribute, Any]

    def __getitem__(self, attribute: Attribute) -> Any:
        if attribute not in self.attributes:
            raise p11.AttributeTypeInvalid
        return self.attributes[attribute]

    @property
    def object_class(self) -> ObjectClass:
        found: ObjectClass = self.attributes[Attribute.CLASS]
        return found

    @property
    def key_type(self) -> KeyType:
        return KeyType.EC

    def sign(self, data: bytes, mechanism: Mechanism | None = None, mechanism_param: object = None) -> bytes:
        if mechanism is not Mechanism.ECDSA or mechanism_param is not None:
            raise p11.MechanismInvalid
        return self.chip.sign(self.slot, data)

    def destroy(self) -> None:
        """Do nothing: objects of a chip cannot be destroyed, and a write replaces the content."""


@dataclass(slots=True)
class _Curve:
    """Equivalent of python-pkcs11 domain parameters, from which a key is generated."""

    session: "AteccSession"

    def generate_keypair(self, *, label: str, **_: object) -> None:
        self.session.generate(label)


class AteccSession:
    """Session interface used by elements."""

    def __init__(self, chip: AteccChip) -> None:
        """Create the session without reading from the chip."""
        self.chip = chip

    def get_objects(self, wanted: Mapping[Attribute, Any] | None = None) -> Iterator[_Object]:
        """Return the objects with all these attributes, read from the chip as far as permitted."""
        kind = None if wanted is None else wanted.get(Attribute.CLASS)
        label = None if wanted is None else wanted.get(Attribute.LABEL)
        for item in self._every(kind, label):
            if all(item.attributes.get(name) == value for name, value in (wanted or {}).items()):
                yield item

    def create_object(self, template: Mapping[Attribute, Any]) -> None:
        """Write data into slot 8, or a certificate of your own CA into slot 10 or 12."""
        label = template[Attribute.LABEL]
        if template[Attribute.CLASS] is ObjectClass.DATA and label == f"slot{DATA_SLOT}":
            self.chip.write_slot(DATA_SLOT, template[Attribute.VALUE].ljust(SLOT_BYTES[DATA_SLOT], b"\0"))
            return
        if template[Attribute.CLASS] is ObjectClass.CERTIFICATE:
            ChipCertificates(self.chip).write(label, template[Attribute.VALUE])
            return
        raise TokenFailedError(detail=f"an ATECC608 has no slot for '{label}': use slot{DATA_SLOT} for data")

    def create_domain_parameters(self, _kind: KeyType, curve: Mapping[Attribute, Any], **_: object) -> _Curve:
        if curve.get(Attribute.EC_PARAMS) != _CURVE:
            raise KeyUnsupportedError(where="An ATECC608", scheme="any curve but P-256")
        return _Curve(self)

    def generate_keypair(self, *_: object, **__: object) -> None:
        raise KeyUnsupportedError(where="An ATECC608", scheme="RSA")

    def generate(self, label: str) -> None:
        """Generate the key of an empty user slot."""
        places = {f"slot{slot}": slot for slot in _SECONDARY}
        if label not in places:
            failed = TokenFailedError(detail=f"an ATECC608 creates keys in {', '.join(places)}, not as '{label}'")
            failed.quote(fix="See which of these slots has no key yet, and name that: `birthmark chip ls`")
            raise failed
        self.chip.generate(places[label])

    # ---- inside

    def _every(self, kind: ObjectClass | None, label: str | None) -> Iterator[_Object]:
        """Yield matching objects, reading only the necessary slots because each read is slow."""
        if kind in (None, ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY):
            for slot, name in _KEYS.items():
                if label in (None, name):
                    yield from self._key(slot)
        if kind in (None, ObjectClass.CERTIFICATE):
            for name, der in self._certificates():
                value = {Attribute.CLASS: ObjectClass.CERTIFICATE, Attribute.LABEL: name, Attribute.VALUE: der}
                yield _Object(self.chip, 0, value)
        if kind in (None, ObjectClass.DATA) and label in (None, f"slot{DATA_SLOT}"):
            yield self._data()

    def _key(self, slot: int) -> Sequence[_Object]:
        if not self.chip.has_key(slot):
            return ()
        point = core.OctetString(b"\x04" + self.chip.point(slot)).dump()
        shared = {
            Attribute.LABEL: _KEYS[slot],
            Attribute.ID: bytes((slot,)),
            Attribute.KEY_TYPE: KeyType.EC,
            Attribute.EC_PARAMS: _CURVE,
            Attribute.EC_POINT: point,
        }
        guarded = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False}
        return (
            _Object(self.chip, slot, {Attribute.CLASS: ObjectClass.PRIVATE_KEY, **shared, **guarded}),
            _Object(self.chip, slot, {Attribute.CLASS: ObjectClass.PUBLIC_KEY, **shared}),
        )

    def _certificates(self) -> Iterator[tuple[str, bytes]]:
        held = ChipCertificates(self.chip)
        for label, read in (("device", held.device), ("signer", held.signer)):
            try:
                yield label, read()
            except CertificateInvalidError:
                continue

    def _data(self) -> _Object:
        value = self.chip.read_slot(DATA_SLOT)
        name = {Attribute.CLASS: ObjectClass.DATA, Attribute.LABEL: f"slot{DATA_SLOT}"}
        return _Object(self.chip, DATA_SLOT, {**name, Attribute.VALUE: value})
