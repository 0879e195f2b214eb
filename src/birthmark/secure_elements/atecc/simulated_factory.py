"""Simulated ATECC608 chips in factory state: configured, with keys, simulated certificates, and locked.

- TNGTLS: Trust&GO, everything locked, with the factory's certificates.
- TRUSTFLEX: the factory's certificate, with open slots for your own CA's certificates.
- TRUSTCUSTOM: your own CA with its own names; `BIRTHMARK_ATECC_TEMPLATE` names examples.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from birthmark.clock_and_entropy import Entropy
from birthmark.pki.certificates import parse_der
from birthmark.secure_elements.atecc.certificate_rebuild import (
    ROOT_KEY_ID,
    SIGNER,
    TNGTLS,
    TRUSTFLEX,
    ChipCertificateTemplate,
    TemplateSubject,
    key_id,
    signed_part,
    whole,
)
from birthmark.secure_elements.atecc.certificates import (
    DEVICE_SLOT,
    EUI_SLOT,
    SIGNER_KEY_SLOT,
    SIGNER_SLOT,
    VARIABLE,
    padded_point,
)
from birthmark.secure_elements.atecc.chip import CHIP_FILE, ChipAddress, save_memory
from birthmark.secure_elements.atecc.compressed_certificate import CompressedCertificate, build_compressed
from birthmark.secure_elements.atecc.simulator import CONFIG_BYTES, OTP_BYTES, REVISIONS, SLOT_BYTES, ChipMemory
from birthmark.secure_elements.errors import ElementExistsError

_OWN = "Own CA (tests only)"
_KEY_SLOTS = range(5)
_BORN_SLOTS = range(2)  # with an own CA: the others are created when needed
_SIGNER_ID = b"\xf6\x00"
_DEVICE_YEARS, _SIGNER_YEARS = 28, 31
_EUI_SPARE = 24


@dataclass(frozen=True, slots=True)
class ChipModel:
    """One chip model in its delivery state."""

    address: int
    code: bytes
    device: ChipCertificateTemplate
    signer: ChipCertificateTemplate
    number: int
    is_open: bool


KINDS: Mapping[str, ChipModel] = {
    "TNGTLS": ChipModel(0x6A, b"x6tjuZMy", TNGTLS, SIGNER, 3, is_open=False),
    "TRUSTFLEX": ChipModel(0x6C, b"MKMwyhP1", TRUSTFLEX, SIGNER, 3, is_open=True),
    "TRUSTCUSTOM": ChipModel(
        0xC0,
        bytes(8),
        ChipCertificateTemplate("sn{serial}", "Own Signer {signer}", organization=_OWN),
        ChipCertificateTemplate("Own Signer {signer}", "Own Root CA", is_ca=True, organization=_OWN),
        0,
        is_open=True,
    ),
}


@dataclass(frozen=True, slots=True)
class SoftwareAtecc:
    """Location and settings of a simulated chip."""

    directory: Path

    @property
    def module(self) -> Path:
        return Path(str(ChipAddress(directory=self.directory)))

    @property
    def template(self) -> Path:
        """Example certificates of your own CA; none for factory certificates."""
        return self.directory / "template.pem"

    @property
    def manufacturer_certificates(self) -> Path:
        return self.directory / "maker-ca.pem"

    @property
    def environment(self) -> Mapping[str, str]:
        """Environment variables that a process needs to use it."""
        own = str(self.template) if self.template.exists() else ""  # empty: do not inherit an earlier chip's value
        return {"BIRTHMARK_PKCS11_MODULE": str(self.module), "BIRTHMARK_TOKEN": "00ABC", VARIABLE: own}


def create_atecc(directory: Path, name: str, *, now: datetime, entropy: Entropy) -> SoftwareAtecc:
    """Create a chip of this model. Raise `ElementExistsError`."""
    if (directory / CHIP_FILE).exists():
        raise ElementExistsError(directory=directory)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    kind, hour = KINDS[name], now.replace(minute=0, second=0, microsecond=0)
    serial = b"\x01\x23" + entropy.token(6) + b"\x01"
    keys = {slot: ec.generate_private_key(ec.SECP256R1()) for slot in (_KEY_SLOTS if kind.number else _BORN_SLOTS)}
    root, signer = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    eui = entropy.token(6).hex().upper()
    about_signer, about_device = TemplateSubject(_point(signer)), TemplateSubject(_point(keys[0]), serial, eui)
    root_id = ROOT_KEY_ID if kind.signer is SIGNER else key_id(_point(root))
    short = _signed(kind.signer, 1 if kind.number else 0, about_signer, (root_id, root), (hour, _SIGNER_YEARS))
    device = _signed(kind.device, kind.number, about_device, (key_id(_point(signer)), signer), (hour, _DEVICE_YEARS))
    slots = [bytes(size) for size in SLOT_BYTES]
    slots[EUI_SLOT] = eui.encode() + bytes(_EUI_SPARE)
    slots[DEVICE_SLOT], slots[SIGNER_SLOT] = device.render(), short.render()
    slots[SIGNER_KEY_SLOT] = padded_point(_point(signer))
    private = {slot: key.private_numbers().private_value.to_bytes(32, "big") for slot, key in keys.items()}
    memory = ChipMemory(_config(kind, serial), kind.code.ljust(OTP_BYTES, b"\0"), slots, private)
    signer_der = whole(kind.signer, short, about_signer, root_id)
    made = SoftwareAtecc(directory.resolve())
    made.manufacturer_certificates.write_text(parse_der(signer_der).pem())
    if not kind.number:
        example = parse_der(whole(kind.device, device, about_device, key_id(_point(signer))))
        made.template.write_text(example.pem() + parse_der(signer_der).pem())
    save_memory(directory, memory)
    return made


def _config(kind: ChipModel, serial: bytes) -> bytes:
    """Return the configuration zone: signing keys with readable public keys (0x33), 2 to 4 can be regenerated.

    The certificate slots are open or locked, depending on the model.
    """
    config = bytearray(CONFIG_BYTES)
    config[0:4], config[8:13] = serial[:4], serial[4:]
    config[4:8] = REVISIONS["ATECC608B"]
    config[13], config[14], config[16] = 1, 1, kind.address
    for slot in _KEY_SLOTS:
        config[20 + 2 * slot], config[21 + 2 * slot] = 0x87, 0x20
        config[96 + 2 * slot], config[97 + 2 * slot] = 0x33, 0x00
    locked = 0b11  # identity key and internal signing key
    if not kind.is_open:
        locked |= 1 << DEVICE_SLOT | 1 << SIGNER_KEY_SLOT | 1 << SIGNER_SLOT
    config[88:90] = (0xFFFF ^ locked).to_bytes(2, "little")
    return bytes(config)


def _signed(
    template: ChipCertificateTemplate,
    number: int,
    subject: TemplateSubject,
    issuer: tuple[bytes, ec.EllipticCurvePrivateKey],
    validity: tuple[datetime, int],
) -> CompressedCertificate:
    (issued, years), (issuer_id, issuer_key) = validity, issuer
    blank = build_compressed(bytes(63) + b"\x01", issued, years, _SIGNER_ID, template=number, chain=0)
    body = signed_part(template, blank, subject, issuer_id)
    r, s = decode_dss_signature(issuer_key.sign(body, ec.ECDSA(hashes.SHA256())))
    raw = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return build_compressed(raw, issued, years, _SIGNER_ID, template=number, chain=0)


def _point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
