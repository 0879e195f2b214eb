"""Labels and ids that NXP's PKCS#11 library assigns to SE050 objects, in both byte orders.

Middleware up to 4.3 writes the object id byte-swapped (0xF0000100 is `sss:000100F0`), later versions do not
(`sss:F0000100`); CKA_ID is little-endian before 4.7 and big-endian since. Neither is self-describing, so a search tries
both.
"""

import re

_LABEL = re.compile(r"sss:(?:0x)?([0-9A-Fa-f]{1,8})")
_ID_BYTES = 4
_IDENTITY_BLOCK = 0xF0000000


def label_of(object_id: int) -> str:
    """Return the label of an object in current middleware."""
    return f"sss:{object_id:08X}"


def swapped(object_id: int) -> int:
    """Return the ID with its four bytes reversed."""
    return int.from_bytes(object_id.to_bytes(_ID_BYTES, "big"), "little")


def ids_of(object_id: int) -> tuple[bytes, bytes]:
    """Return both possible values of CKA_ID."""
    return object_id.to_bytes(_ID_BYTES, "big"), object_id.to_bytes(_ID_BYTES, "little")


def object_id_of(label: str) -> int | None:
    """Return the object id of a label, in the byte order that gives NXP's block 0xF0…; None for other labels."""
    found = _LABEL.fullmatch(label)
    if found is None:
        return None
    object_id = int(found[1], 16)
    turned = swapped(object_id)
    is_swapped = object_id & 0xFF000000 != _IDENTITY_BLOCK and turned & 0xFF000000 == _IDENTITY_BLOCK
    return turned if is_swapped else object_id


def is_same_label(expected: str, label: str) -> bool:
    """Return whether two labels name the same object, in either byte order."""
    if expected == label:
        return True
    wanted_id = object_id_of(expected)
    return wanted_id is not None and wanted_id == object_id_of(label)
