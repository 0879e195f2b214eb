"""Element profiles as data: their PKCS#11 token labels and factory objects.

Sources: NXP's SE05x middleware (object ids, labels) and Microchip's cryptoauthlib (token and object labels, slot 8).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Algorithm(StrEnum):
    """Key types that can be generated."""

    P256 = "p256"
    P384 = "p384"
    RSA2048 = "rsa2048"
    RSA3072 = "rsa3072"
    RSA4096 = "rsa4096"


@dataclass(frozen=True, slots=True)
class KeySlot:
    """A factory key. `object_id` is NXP's; its certificate has the ID with the last bit set."""

    label: str
    algorithm: Algorithm
    object_id: int | None = None


@dataclass(frozen=True, slots=True)
class Variant:
    """A chip variant as NXP delivers it: its configurations by OEF ID, and its factory keys."""

    title: str
    oef_ids: tuple[str, ...]
    keys: tuple[KeySlot, ...]
    is_presumed: bool = False
    """Whether the keys are assumed, because NXP's public documents do not specify them."""


@dataclass(frozen=True, slots=True)
class ChipProfile:
    """One type of element.

    `keys` has the identity key first, unless there are `variants`, which require a search.
    """

    name: str
    title: str
    token_label: str | None = None
    keys: tuple[KeySlot, ...] = ()
    signer_label: str | None = None
    memory_label: str | None = None
    memory_bytes: int = 0
    identities: tuple[KeySlot, ...] = ()
    """Possible identity keys of a chip of unknown variant, in search order."""
    variants: Mapping[str, Variant] = field(default_factory=dict)


def _slot(object_id: int, algorithm: Algorithm) -> KeySlot:
    return KeySlot(f"sss:{object_id:08X}", algorithm, object_id)


# A device's key and a gateway's; the certificate has the next ID.
_EC = (_slot(0xF0000100, Algorithm.P256), _slot(0xF0000102, Algorithm.P256))
_RSA = (
    _slot(0xF0000110, Algorithm.RSA2048),
    _slot(0xF0000112, Algorithm.RSA2048),
    _slot(0xF0000120, Algorithm.RSA4096),
    _slot(0xF0000122, Algorithm.RSA4096),
)

SE050 = ChipProfile(
    name="se050",
    title="NXP EdgeLock SE050",
    token_label="SSS_PKCS11",  # noqa: S106 (a label)
    keys=(_EC[0], _RSA[0]),
    identities=(*_EC, *_RSA),
    variants={
        "A": Variant("SE050A1, A2", ("A204", "A205"), _EC),
        "B": Variant("SE050B1, B2", ("A202", "A203"), _RSA),
        "C": Variant("SE050C1, C2", ("A200", "A201"), _EC + _RSA),
        "E": Variant("SE050E", ("A921",), _EC, is_presumed=True),
        "F": Variant("SE050F2", ("A77E", "A92A"), _EC + _RSA, is_presumed=True),
        "SE051A": Variant("SE051A", ("A920",), _EC, is_presumed=True),
        "SE051C": Variant("SE051C", ("A8FA",), _EC + _RSA, is_presumed=True),
        "SE052F": Variant("SE052F", ("B501",), _EC + _RSA, is_presumed=True),
    },
)
ATECC608 = ChipProfile(
    name="atecc608",
    title="Microchip ATECC608 Trust&GO",
    token_label="00ABC",  # noqa: S106 (a label)
    keys=(KeySlot("device", Algorithm.P256),),
    signer_label="signer",
    memory_label="slot8",
    memory_bytes=416,
)
GENERIC = ChipProfile(name="generic", title="PKCS#11 token", memory_label="birthmark", memory_bytes=1024)

PROFILES: Mapping[str, ChipProfile] = {profile.name: profile for profile in (SE050, ATECC608, GENERIC)}

# cryptoauthlib labels a token by its slot: two hex digits and ABC.
_ATECC_TOKEN = re.compile(r"[0-9A-F]{2}ABC")


def profile_of(token_label: str) -> ChipProfile:
    """Return the profile for a token label; GENERIC if unknown."""
    if token_label == SE050.token_label:
        return SE050
    return ATECC608 if _ATECC_TOKEN.fullmatch(token_label) else GENERIC
