"""Simulated secure elements: SoftHSM2 tokens with a real element's labels, IDs, certificates and quirks.

For tests and the demo. They use a real PKCS#11 library with a software token. Keys are generated in the token,
sensitive and not extractable. The manufacturer's CA is created on the spot, and its private key is discarded after the
last certificate is signed.

Differences from silicon: SoftHSM requires a PIN (an SE050 accepts any), and has no limit of three sessions.
"""

import ctypes
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from pkcs11.constants import Attribute
from pkcs11.util.x509 import decode_x509_certificate

from birthmark.clock_and_entropy import Entropy
from birthmark.keys.errors import ModuleBrokenError
from birthmark.keys.pin import Pin
from birthmark.keys.pkcs11_key import TokenKey
from birthmark.keys.pkcs11_library_lifecycle import LOCK, find_softhsm, load_library, stop_library
from birthmark.keys.pkcs11_token import Pkcs11Token
from birthmark.keys.se050_labels import ids_of, label_of, swapped
from birthmark.pki.certificate_profiles import DEVICE, ISSUING_CA, ROOT
from birthmark.pki.certificates import Certificate
from birthmark.pki.issuance import LeafIssuer, issue, new_serial, self_signed
from birthmark.pki.names_and_registration_ids import name_of
from birthmark.secure_elements.chip_profiles import ATECC608, GENERIC, PROFILES, SE050, ChipProfile, KeySlot, Variant
from birthmark.secure_elements.element_session import Element
from birthmark.secure_elements.errors import ElementExistsError
from birthmark.secure_elements.token_object_management import certificate_label, generate

_LABEL_BYTES = 32
_SO, _USER = 0, 1
_RW_SERIAL = 0x2 | 0x4
_CONF = """\
directories.tokendir = {tokens}
objectstore.backend = file
objectstore.umask = 0077
log.level = ERROR
slots.removable = false
"""


def initialize_token(directory: Path, label: str, pin: str) -> Path:
    """Create `directory` with `softhsm2.conf` and one token, select it here, and return the library.

    The selection applies to this process.
    """
    module = find_softhsm()
    tokens = directory / "tokens"
    tokens.mkdir(mode=0o700, parents=True)
    conf = directory / "softhsm2.conf"
    conf.write_text(_CONF.format(tokens=tokens.resolve()))
    conf.chmod(0o600)
    with LOCK:
        select(directory)
        stop_library()
        load_library(module)
        _initialize(module, label, pin)
        stop_library()  # SoftHSM finds tokens only at start
    return module


def select(directory: Path) -> None:
    """Set `directory` as the SoftHSM directory of this process and its children."""
    os.environ["SOFTHSM2_CONF"] = str((directory / "softhsm2.conf").resolve())


def _initialize(module: Path, label: str, pin: str) -> None:
    library = ctypes.CDLL(str(module.resolve()))  # the copy that is already loaded and started
    count = ctypes.c_ulong(8)
    slots = (ctypes.c_ulong * 8)()
    secret = pin.encode()
    session = ctypes.c_ulong()
    unsigned = ctypes.c_ulong
    _check(library.C_GetSlotList(ctypes.c_ubyte(1), slots, ctypes.byref(count)), module)
    slot = unsigned(slots[count.value - 1])
    padded = label.encode().ljust(_LABEL_BYTES)
    _check(library.C_InitToken(slot, secret, unsigned(len(secret)), padded), module)
    _check(library.C_OpenSession(slot, unsigned(_RW_SERIAL), None, None, ctypes.byref(session)), module)
    _check(library.C_Login(session, unsigned(_SO), secret, unsigned(len(secret))), module)
    _check(library.C_InitPIN(session, secret, unsigned(len(secret))), module)
    _check(library.C_CloseSession(session), module)


def _check(code: int, module: Path) -> None:
    if code:
        raise ModuleBrokenError(path=module, detail=f"error 0x{code & 4294967295:x} while creating a token")


_ORGANIZATION = "Software element (tests only)"
_LIFETIME = timedelta(days=25 * 365)
_PADDED_BYTES = 2048  # SE050 files are larger than their certificates
_MAKERS = {
    SE050.name: ("NXP-like test root", "NXP-like test intermediate SE050"),
    ATECC608.name: ("Crypto Authentication test root", "Crypto Authentication test signer F600"),
    GENERIC.name: ("Test maker root", "Test maker signer"),
}
_CHIP_ID_BYTES = {SE050.name: 18, ATECC608.name: 6, GENERIC.name: 8}


@dataclass(frozen=True, slots=True)
class SoftwareElement:
    """Location and settings of a simulated element."""

    directory: Path
    profile: ChipProfile
    module: Path

    @property
    def pin_file(self) -> Path:
        return self.directory / "pin"

    @property
    def manufacturer_certificates(self) -> Path:
        """CA certificates of the manufacturer in PEM, intermediate first."""
        return self.directory / "maker-ca.pem"

    @property
    def token_label(self) -> str:
        return self.profile.token_label or "birthmark"

    @property
    def environment(self) -> Mapping[str, str]:
        """Environment variables that a process needs to use it."""
        return {
            "SOFTHSM2_CONF": str(self.directory / "softhsm2.conf"),
            "BIRTHMARK_PKCS11_MODULE": str(self.module),
            "BIRTHMARK_TOKEN": self.token_label,
            "BIRTHMARK_PIN_FILE": str(self.pin_file),
        }

    def open(self) -> Element:
        """Open it in this process and set SoftHSM's configuration to this directory."""
        select(self.directory)
        token = Pkcs11Token.open(self.module, label=self.token_label, pin=Pin.from_file(self.pin_file))
        return Element(token, self.profile)


def open_software_element(directory: Path) -> SoftwareElement:
    """Load the simulated element in `directory`."""
    name = (directory / "profile").read_text().strip()
    return SoftwareElement(directory.resolve(), PROFILES[name], find_softhsm())


def create_software_element(
    directory: Path,
    profile: ChipProfile,
    *,
    now: datetime,
    entropy: Entropy,
    variant: Variant | None = None,
    has_swapped_labels: bool = False,
) -> SoftwareElement:
    """Create an element of this type in factory state. Raise `ElementExistsError` or `SoftHsmMissingError`.

    With a `variant` it has all keys of that variant, otherwise one of each type. `has_swapped_labels` imitates the
    SE050's middleware up to 4.3.
    """
    find_softhsm()
    if (directory / "softhsm2.conf").exists():
        raise ElementExistsError(directory=directory)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    pin = entropy.token(8).hex()
    module = initialize_token(directory, profile.token_label or "birthmark", pin)
    pin_file = directory / "pin"
    pin_file.touch(mode=0o600)
    pin_file.chmod(0o600)
    pin_file.write_text(pin + "\n")
    (directory / "profile").write_text(profile.name + "\n")
    made = SoftwareElement(directory.resolve(), profile, module)
    maker = _Manufacturer(profile, now, entropy)
    with made.open() as element:
        chip_id = entropy.token(_CHIP_ID_BYTES[profile.name]).hex()
        for slot in profile.keys if variant is None else variant.keys:
            _make_key(element, slot, maker, chip_id, has_swapped_labels=has_swapped_labels)
        if profile.signer_label is not None:
            element.write_certificate(maker.issuer.certificate, label=profile.signer_label)
        if profile.memory_label is not None:
            element.write_data(profile.memory_label, bytes(profile.memory_bytes))
    made.manufacturer_certificates.write_text(maker.issuer.certificate.pem() + maker.root.pem())
    return made


class _Manufacturer:
    """Temporary CA of a manufacturer: root and signer, whose keys are not stored."""

    def __init__(self, profile: ChipProfile, now: datetime, entropy: Entropy) -> None:
        self.profile, self._now, self._entropy = profile, now, entropy
        root_name, signer_name = (name_of(name, _ORGANIZATION) for name in _MAKERS[profile.name])
        root_key, signer_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        serial, other = new_serial(entropy), new_serial(entropy)
        self.root = self_signed(ROOT, root_name, root_key, serial=serial, now=now, lifetime=_LIFETIME)
        above = LeafIssuer(self.root, root_key)
        signer = issue(
            ISSUING_CA, signer_name, signer_key.public_key(), issuer=above, serial=other, now=now, lifetime=_LIFETIME
        )
        self.issuer = LeafIssuer(signer, signer_key)

    def certify(self, common_name: str, key: TokenKey) -> Certificate:
        subject, serial = name_of(common_name, _ORGANIZATION), new_serial(self._entropy)
        return issue(
            DEVICE, subject, key.public_key, issuer=self.issuer, serial=serial, now=self._now, lifetime=_LIFETIME
        )


def _make_key(element: Element, slot: KeySlot, maker: _Manufacturer, chip_id: str, *, has_swapped_labels: bool) -> None:
    label, key_id = slot.label, None
    if slot.object_id is not None:
        key_id = ids_of(slot.object_id)[has_swapped_labels]
        label = label_of(swapped(slot.object_id)) if has_swapped_labels else label_of(slot.object_id)
    with element.token.session() as session:
        generate(session, label, slot.algorithm, key_id)
    key = TokenKey.find(element.token, label=label)
    certificate = maker.certify(_common_name(maker.profile, slot, chip_id), key)
    if slot.object_id is None:
        element.write_certificate(certificate, label)
        return
    template: dict[Attribute, Any] = decode_x509_certificate(certificate.der)
    certificate_id = ids_of(slot.object_id | 1)[has_swapped_labels]
    template |= {
        Attribute.TOKEN: True,
        Attribute.PRIVATE: False,
        Attribute.LABEL: certificate_label(key),
        Attribute.ID: certificate_id,
        Attribute.VALUE: certificate.der.ljust(_PADDED_BYTES, b"\0"),
    }
    with element.token.session() as session:
        session.create_object(template)


def _common_name(profile: ChipProfile, slot: KeySlot, chip_id: str) -> str:
    """Return the chip's common name: 18-byte UID (SE050) or 9-byte serial number (Trust&GO, sn0123…01)."""
    if profile is ATECC608:
        return f"sn0123{chip_id.upper()}01"
    if slot.object_id is not None:
        return f"se050-{chip_id}-{slot.object_id & 0xFFF:03x}"
    return f"element-{chip_id}"
