"""Text that a person edited in a file: UTF-8 with or without a byte order mark, or UTF-16 with one, as from Windows.

Each reader of such a file decodes it here, so that no form of text is known to one reader and foreign to another.
"""

import codecs
import shlex
from pathlib import Path

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def plain_text(raw: bytes) -> bytes:
    """Return marked text as UTF-8 without its mark; bytes without a mark, such as DER, as they are."""
    if raw.startswith(_UTF_16):
        try:
            return raw.decode("utf-16").encode()
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
