"""Text that a person edited in a file: UTF-8 or UTF-16, with or without a byte order mark, as from Windows.

Each reader of such a file decodes it here, so that no form of text is known to one reader and foreign to another.
"""

import codecs
import re
import shlex
import unicodedata
from pathlib import Path

_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_UNMARKED = re.compile(rb"(?P<le>[\t\n\r -~]\0[\t\n\r -~]\0)|\0[\t\n\r -~]\0[\t\n\r -~]")
"""Two characters of ASCII as UTF-16 begins with them; no DER and no UTF-8 text does."""
_OF_JAPAN = ("HIRAGANA", "KATAKANA", "CJK UNIFIED")


def utf_16_of(raw: bytes) -> str | None:
    """Return the name of the codec for text that begins as UTF-16 does, else None."""
    if raw.startswith(_MARKS):
        return "utf-16"
    found = _UNMARKED.match(raw)
    return found and ("utf-16le" if found["le"] else "utf-16be")


def encoding_of(raw: bytes) -> str:
    """Return what text is probably written in that is not UTF-8: as Windows writes it in Japan, or in the west."""
    text = raw.decode("cp932", errors="replace")
    is_japanese = any(unicodedata.name(char, "").startswith(_OF_JAPAN) for char in text)
    has_others = "\ufffd" in text[:-1] or any(unicodedata.category(char) == "Co" for char in text)
    return "CP932" if is_japanese and not has_others else "CP1252"


def plain_text(raw: bytes) -> bytes:
    """Return text of UTF-16, or with a mark, as UTF-8 without its mark; other bytes, such as DER, as they are."""
    if (codec := utf_16_of(raw)) is not None:
        try:
            return raw.decode(codec).encode()
        except UnicodeError:
            return raw
    return raw.removeprefix(codecs.BOM_UTF8)


def decode_text(raw: bytes) -> str:
    """Return the text of a file. Raise `UnicodeDecodeError`."""
    return plain_text(raw).decode()


def read_text_file(path: Path, limit: int = -1) -> str:
    """Return the text of a file, at most `limit` bytes of it. Raise `OSError` or `UnicodeDecodeError`."""
    with path.open("rb") as file:
        return decode_text(file.read(limit))


def to_utf_8(path: Path | str, encoding: str = "UTF-16") -> str:
    """Return the command that writes a file as UTF-8, beside it under a new name."""
    quoted = shlex.quote(f"{path}.utf8")
    return f"(set -C; iconv -f {encoding} -t UTF-8 {shlex.quote(str(path))} > {quoted})"
