"""Chips as data: what their PKCS#11 token is called and which objects it holds from birth.

Sources: NXP's SE05x middleware (object ids, labels) and Microchip's cryptoauthlib (token and object labels, slot 8).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Algorithm(StrEnum):
    """Kinds of keys that can be made."""

    P256 = "p256"
    P384 = "p384"
    RSA2048 = "rsa2048"
    RSA3072 = "rsa3072"


@dataclass(frozen=True, slots=True)
class KeySlot:
    """A key that the chip is born with. `object_id` is NXP's; a certificate there has the id with its last bit set."""

    label: str
    algorithm: Algorithm
    object_id: int | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of chip. `keys` has the identity key first."""

    name: str
    title: str
    token_label: str | None = None
    keys: tuple[KeySlot, ...] = ()
    signer_label: str | None = None
    memory_label: str | None = None
    memory_bytes: int = 0


SE050 = Profile(
    name="se050",
    title="NXP EdgeLock SE050",
    token_label="SSS_PKCS11",  # noqa: S106 (a label)
    keys=(
        KeySlot("sss:F0000100", Algorithm.P256, 0xF0000100),
        KeySlot("sss:F0000110", Algorithm.RSA2048, 0xF0000110),
    ),
)
ATECC608 = Profile(
    name="atecc608",
    title="Microchip ATECC608 Trust&GO",
    token_label="00ABC",  # noqa: S106 (a label)
    keys=(KeySlot("device", Algorithm.P256),),
    signer_label="signer",
    memory_label="slot8",
    memory_bytes=416,
)
GENERIC = Profile(name="generic", title="PKCS#11 token", memory_label="birthmark", memory_bytes=1024)

PROFILES: Mapping[str, Profile] = {profile.name: profile for profile in (SE050, ATECC608, GENERIC)}

# cryptoauthlib names a token by its slot: two hex digits and ABC.
_ATECC_TOKEN = re.compile(r"[0-9A-F]{2}ABC")


def profile_of(token_label: str) -> Profile:
    """Return the profile of a token by its label; GENERIC when it is nobody's."""
    if token_label == SE050.token_label:
        return SE050
    return ATECC608 if _ATECC_TOKEN.fullmatch(token_label) else GENERIC
