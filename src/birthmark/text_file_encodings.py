"""Decoding of edited text files: UTF-8 or UTF-16, with or without a byte order mark, as from Windows.

Every reader of such a file decodes it here, so that all support the same encodings.
"""

import codecs
import itertools
import os
import re
import shlex
import unicodedata
from pathlib import Path, PurePath

_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_MARKS_OF_32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_PADDING = b"\0\x1a"
"""Padding that programs append to a text: NUL, and the DOS end-of-file character."""
BLANKS = (
    "\0\t\n\v\f\r\x1a\x1c\x1d\x1e\x1f \x85\xa0\xad\u1680"
    "\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u200b\u200c\u200d\u200e\u200f"
    "\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u202f\u205f\u2060\u2066\u2067\u2068\u2069\u3000\ufeff"
)
"""White space and invisible characters, such as those that Windows dialogs add to copied text."""
_APPENDED = "it contains a NUL character; `>>` of PowerShell appends UTF-16, for example"
_LOOKED_AT_BYTES = 4096
_OF_PEOPLE = re.compile(
    "[\t\r\n -~\u00a0-\u06ff\u0e00-\u0e7f\u1e00-\u1eff\u2010-\u26ff"
    "\u3000-\u31ff\u4e00-\u9fff\uac00-\ud7a3\uff00-\uffef]++"
)
"""Characters of common scripts; bytes in another encoding rarely decode to these only."""
_OF_JAPAN = re.compile(r"[\u3041-\u30ff]|[\u4e00-\u9fff]{2}")
"""Kana, or two kanji in a row: CP932 decodes Western accented letters as single kanji, as in Gerät."""
_OF_THE_WEST = re.compile(
    r"[a-z][\u3041-\u30ff\u4e00-\u9fff][a-z]|(?<!\w)[\u3041-\u30ff\u4e00-\u9fff][a-z]|[a-z][\u30a1-\u30ff](?!\w)"
)
"""A single one of these among lowercase letters: CP932 decodes an accented letter and the next character to it."""
_OF_DOS = re.compile(rb"[A-Za-z][\x81-\x84\x87-\x8c\x93\x94][a-z\xe1]")
"""A CP850 letter between others, which is a quotation mark or the like in CP1252."""
_BETWEEN_WORDS = re.compile(r"[^\w\u0080-\uffff]+")
_WORD = re.compile(rb"(?<![A-Za-z\x80-\xff])[A-Za-z]*+[\x80-\xff][A-Za-z\x80-\xff]*+")
_ACCENTED = re.compile(r"(?:[A-Za-z]|[\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u00ff\u0152\u0153\u0160\u0161\u017d\u017e])+")
_WESTERN = ("CP1252", "CP850", "MACINTOSH")
_OF_NO_LATIN_1 = range(0x80, 0xA0)
"""Bytes with few letters in CP1252, and nearly all accented letters in the other encodings."""
_NOT_ASCII_TEXT = re.compile(rb"[^\t\r\n -~]")
_MOST_SHOWN = 24
_UNSEEN = re.compile("[\0\r\u00a0\u2000-\u200f\u2010-\u201f\u2028\u2029\u202f\u3000\ufeff\uff02\uff07\uff1d]")
_ARMOR = re.compile("\\W{0,3}?[-\u2010-\u2015\u2212\uff0d]{2,}\\W{0,3}(BEGIN|END)\\b")
_NOT_IN_PEM = re.compile("[^\t -~]")


def utf_16_of(raw: bytes) -> str | None:
    """Return the codec of UTF-16 or UTF-32 text, or None.

    A byte order mark identifies both; zero bytes of ASCII characters also identify UTF-16.
    """
    if raw.startswith(_MARKS_OF_32):
        return "utf-32"
    if raw.startswith(_MARKS):
        return "utf-16"
    head = raw[:_LOOKED_AT_BYTES]
    is_le, is_be = 0 in head[1::2], 0 in head[::2]
    if is_le is is_be or _is_der(head) or _is_of_8_bits(head, is_le=is_le):
        return None
    codec = "utf-16le" if is_le else "utf-16be"
    text = head[: len(head) & ~1].decode(codec, errors="replace")
    return codec if _OF_PEOPLE.fullmatch(text) is not None else None


def _is_of_8_bits(head: bytes, *, is_le: bool) -> bool:
    """Return whether bytes are rather 8-bit text with NUL terminators: most are ASCII, and few are zero."""
    upper, others = head[is_le::2], head.replace(b"\0", b"")
    return 2 * upper.count(0) < len(upper) and 4 * len(_NOT_ASCII_TEXT.findall(others)) < len(others)


def _is_der(raw: bytes) -> bool:
    """Return whether bytes start with a DER SEQUENCE."""
    return raw[:1] == b"0" and (b"\x80" <= raw[1:2] <= b"\x84" or raw[1:2] == bytes([(len(raw) - 2) % 256]))


def is_binary(raw: bytes) -> bool:
    """Return whether bytes are not text in any encoding."""
    return utf_16_of(raw) is None and (0 in raw[:_LOOKED_AT_BYTES] or _is_der(raw))


def encoding_of(raw: bytes) -> str:
    """Return the probable encoding of text that is not UTF-8: that of Japanese or Western Windows, or of DOS."""
    text = raw.decode("cp932", errors="replace")
    has_others = "\ufffd" in text[:-1] or any(unicodedata.category(char) == "Co" for char in text)
    if _OF_JAPAN.search(text) is not None and _OF_THE_WEST.search(text) is None and not has_others:
        return "CP932"
    return "CP850" if _OF_DOS.search(raw) is not None else "CP1252"


def foreign_line(raw: bytes) -> int:
    """Return the line of the first byte that is not UTF-8; `raw` may end in the middle of a character."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(raw)
    except UnicodeDecodeError as error:
        return raw.count(b"\n", 0, error.start) + 1
    return 0


def not_utf_8(raw: bytes, *, is_shown: bool = True) -> str:
    """Return the error text for a file that is not UTF-8, to follow the file name.

    It quotes a word as decoded by `encoding_of`, so that a user can judge the result. With `is_shown` False it quotes
    none, because the file may contain a secret.
    """
    if is_binary(raw):
        begin = raw.partition(b"\0")[0]
        is_appended = b"\n" in begin and _NOT_ASCII_TEXT.search(begin[:_LOOKED_AT_BYTES]) is None
        line = begin.count(b"\n") + 1
        return f"is not UTF-8: in line {line} {_APPENDED}" if is_appended else "is not text, but binary, as a PFX is"
    if not (line := foreign_line(raw)):
        return "is not UTF-8"
    if not is_shown:
        return f"is not UTF-8 (line {line})"
    encoding = encoding_of(raw)
    said = raw.split(b"\n", line)[line - 1].decode(encoding, errors="replace")
    word = next((one for one in _BETWEEN_WORDS.split(said) if not one.isascii()), "")
    shown = f'"{word[:_MOST_SHOWN]}" in {encoding}'
    if (other := other_encoding(raw)) is not None:
        shown += f', "{_first_word(raw).decode(other)[:_MOST_SHOWN]}" in {other}'
    return f"is not UTF-8 (line {line}: {shown})"


def other_encoding(raw: bytes) -> str | None:
    """Return the other Western encoding in which the word consists of letters only, or None."""
    word, first = _first_word(raw), encoding_of(raw)
    if first == "CP932" or all(byte not in _OF_NO_LATIN_1 for byte in word):
        return None
    for encoding in _WESTERN:
        text = word.decode(encoding, errors="replace")
        is_mixed = any(one.islower() and other.isupper() for one, other in itertools.pairwise(text))
        if encoding != first and _ACCENTED.fullmatch(text) and not is_mixed:
            return encoding
    return None


def _first_word(raw: bytes) -> bytes:
    line = raw.split(b"\n", foreign_line(raw))[max(foreign_line(raw) - 1, 0)]
    found = _WORD.search(line)
    return found[0] if found is not None else b""


def unseen(text: str, line: int) -> str:
    """Return the invisible or confusable character of a line as a text; empty if there is none."""
    lines = text.split("\n")
    if (found := _UNSEEN.search(lines[line - 1] if line <= len(lines) else "")) is None:
        return ""
    if "\0" in lines[line - 1]:
        return f"; {_APPENDED}"
    if found[0] == "\r":
        return "; the line ends with CR alone: use LF"
    what = unicodedata.name(found[0], "a character").lower()
    return (
        f"; U+{ord(found[0]):04X} ({what}) at character {found.start() + 1} is invisible or a look-alike of another "
        "character"
    )


def unseen_in_pem(raw: bytes) -> str:
    """Return the line of PEM and its first invalid character; empty if there is none."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("cp1252", errors="replace")
    is_inside = False
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        mark = _ARMOR.match(line)
        is_inside = is_inside or mark is not None
        if is_inside and (found := _NOT_IN_PEM.search(line.removeprefix("\ufeff"))) is not None:
            what = unicodedata.name(found[0], "a character").lower()
            return f"line {number} has U+{ord(found[0]):04X} ({what}), which PEM does not allow"
        if mark is not None and mark[1] == "END":
            is_inside = False
    return ""


def plain_text(raw: bytes) -> bytes:
    """Return UTF-16 text, or text with a byte order mark, as UTF-8 without one; other bytes are unchanged.

    Other bytes include DER. Some editors write a second mark after the first, Windows `copy` appends the DOS
    end-of-file character, and other programs append NUL.
    """
    if (codec := utf_16_of(raw)) is not None:
        try:
            raw = raw.decode(codec).encode()
        except UnicodeError:
            return raw
    text = raw.removeprefix(codecs.BOM_UTF8).removeprefix(codecs.BOM_UTF8)
    plain = text.rstrip(_PADDING + b"\r\n")
    padding = text[len(plain) :].translate(None, b"\r\n")
    if not padding or (not plain and 0 in padding) or 0 in plain or _is_der(text) or foreign_line(plain):
        return text
    return plain + b"\n" * (text[len(plain) : len(plain) + 2].lstrip(b"\r")[:1] == b"\n")


def decode_text(raw: bytes) -> str:
    """Decode the text of a file. Raise `UnicodeDecodeError`."""
    return plain_text(raw).decode()


def read_text_file(path: Path, limit: int = -1) -> str:
    """Return the text of a file, at most `limit` bytes. Raise `OSError` or `UnicodeDecodeError`."""
    with path.open("rb") as file:
        return decode_text(file.read(limit))


def copy_of(path: PurePath | str, name: str = "") -> Path:
    """Return the path for a modified copy: the file's directory, or the current one if the user cannot write there.

    Without `name`, the copy has the file's name, to which the caller adds a suffix.
    """
    known = Path(path)
    copy = known.with_name(name) if name else known
    is_open = os.access(known.parent, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)
    return copy if is_open else Path(copy.name)


def to_utf_8(path: Path | str, encoding: str = "UTF-16") -> str:
    """Return the command that converts a file to UTF-8 under a new name with the same suffix."""
    known = PurePath(path)
    quoted = shlex.quote(str(copy_of(known, f"{known.stem}.utf8{known.suffix}")))
    return f"(umask 077; set -C; iconv -f {encoding} -t UTF-8 {shlex.quote(str(path))} > {quoted}){_aside(known)}"


def to_lines(path: Path | str, text: str) -> str:
    """Return the command that converts a file's line ends to LF under a new name; empty if no lone CR ends a line."""
    if "\0" in text or "\r" not in text.replace("\r\n", ""):
        return ""
    known = PurePath(path)
    made = shlex.quote(str(copy_of(known, f"{known.stem}.lines{known.suffix}")))
    return f"(umask 077; set -C; tr '\\r' '\\n' < {shlex.quote(str(path))} > {made}){_aside(known)}"


def to_plain_lines(path: PurePath, raw: bytes) -> tuple[str, Path]:
    """Return the commands that convert lines that start like `raw` to UTF-8 with LF, and the new file's name.

    They remove empty lines and a byte order mark. For files that a program wrote and an editor converted.
    """
    copy = copy_of(path, f"{path.stem}.utf8{path.suffix}")
    read = f"iconv -f {(utf_16_of(raw) or 'utf-8').upper()} -t UTF-8 {shlex.quote(str(path))}"
    edit = "tr '\\r' '\\n' | sed '1s/^\\xef\\xbb\\xbf//; /^$/d'"
    return f"(umask 077; set -C; {read} | {edit} > {shlex.quote(str(copy))})", copy


def _aside(path: PurePath) -> str:
    """Return the additional command for a directory `*.d`, whose files are all read: rename the original."""
    is_read = path.parent.suffix == ".d" and path.suffix == ".toml"
    return f" && mv -n {shlex.quote(str(path))} {shlex.quote(f'{path}.old')}" if is_read else ""


def format_conversion_fix(path: Path | str, raw: bytes, *, is_shown: bool = True, is_secret: bool = False) -> str:
    """Return the fix for a file that is not UTF-8, as a sentence without its final period.

    `is_shown` means that the user saw the word from `not_utf_8` and can judge the encoding. The encoding of a secret
    must not be guessed: a wrong guess would silently change it.
    """
    if is_binary(raw):
        return "Give the file of text that is meant"
    if is_secret:
        return "Save it as UTF-8 in the editor that created it"
    encoding = encoding_of(raw)
    command = f"write it as UTF-8, and give that: `{to_utf_8(path, encoding)}`"
    if not is_shown:
        return f"If it is in {encoding}, {command}"
    other = other_encoding(raw)
    also = "" if other is None else f"; if the other word is right: `{to_utf_8(path, other)}`"
    return f"If that word is right, {command}{also}"


def blanks_around(text: str) -> str:
    """Return a text if a secret starts or ends with white space or invisible characters; empty otherwise."""
    if text == text.strip(BLANKS):
        return ""
    hidden = [f"U+{ord(one):04X}" for one in (text[0], text[-1]) if one in BLANKS and not one.isspace()]
    return f"begins or ends with {hidden[0]}, which is invisible" if hidden else "begins or ends with white space"


def without_blanks(path: Path | str, raw: bytes) -> str:
    """Return the fix for a secret file that `blanks_around` reports, as a sentence without its final period."""
    return f"Write it without white space, and give that file: `{format_trim_command(path, raw)}`"


def format_trim_command(path: Path | str, raw: bytes) -> str:
    """Return the command that writes a line of text as UTF-8 without surrounding white space, under a new name.

    White space may include empty lines: sed reads the file as one line. The DOS end-of-file character is removed, too.
    """
    known, codec = PurePath(path), utf_16_of(raw)
    text = raw.decode(codec or "utf-8", errors="replace").rstrip("\r\n")
    begin, end = text[: len(text) - len(text.lstrip(BLANKS))], text[len(text.rstrip(BLANKS)) :]
    has_nul = "\0" in begin + end  # NUL splits sed's text
    begin, end = begin.replace("\0", ""), end.replace("\0", "")
    edits = [f"s/^{_escaped(begin)}//"] * bool(begin) + [f"s/{_escaped(end)}[\\r\\n]*$//"]
    edit = f"LC_ALL=C sed -z {shlex.quote('; '.join(edits))}"
    quoted = shlex.quote(str(path))
    steps = [f"iconv -f {codec.upper()} -t UTF-8 {quoted}"] if codec else []
    steps += [f"tr -d '\\0'{'' if steps else f' < {quoted}'}"] if has_nul else []
    made = " | ".join((*steps, edit)) if steps else f"{edit} {quoted}"
    return f"(umask 077; set -C; {made} > {shlex.quote(str(trimmed(known)))})"


def trimmed(path: PurePath | str) -> PurePath:
    """Return the new name of the file that `to_trimmed` writes."""
    known = PurePath(path)
    return copy_of(known, f"{known.stem}.trimmed{known.suffix}")


def _escaped(text: str) -> str:
    return "".join(f"\\x{one:02x}" for one in text.encode())
