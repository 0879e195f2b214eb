"""How people name an object in a chip: by object id, by label, by CKA_ID."""

import re
from dataclasses import dataclass

from birthmark.elements.errors import SelectorInvalidError
from birthmark.keys.labels import label_of, object_id_of

_OBJECT_ID = re.compile(r"(?:0[xX])?([0-9A-Fa-f]{8})")
_KEY_ID = re.compile(r"id:((?:[0-9A-Fa-f]{2}){1,64})")
MAX_LABEL_CHARS = 255


@dataclass(frozen=True, slots=True)
class Selector:
    """A label (of SE050 objects in either byte order) or a CKA_ID; neither means: the only one, or the identity key."""

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
