"""A guess of what a data object holds, for people who look at a list of them."""

import msgspec

from birthmark.elements.errors import ElementMemoryInvalidError
from birthmark.elements.memory import Layout, is_blank, read_memory
from birthmark.keys.token_key import cut_der
from birthmark.pki.certificates import CertificateInvalidError, parse_der
from birthmark.text import decode_json, printable

_MAX_SHOWN_CHARS = 60
_SEQUENCE = 0x30


def guess(raw: bytes) -> str:
    """Return a few words; never the bytes themselves, which may be somebody's secret."""
    if is_blank(raw):
        return "blank"
    try:
        found = read_memory(raw)
    except ElementMemoryInvalidError:
        return _another(raw)
    device, hub = (printable(text[:_MAX_SHOWN_CHARS]) for text in (found.device, found.hub))
    if found.layout is Layout.HOWTO:
        return f"the how-to's layout: serial {device}, " + (f"hub {hub}" if hub else "no hub yet")
    return f"Birthmark's layout: device {device} at {hub}"


def _another(raw: bytes) -> str:
    if raw[0] == _SEQUENCE:
        try:
            subject = parse_der(cut_der(raw)).subject_text
        except (CertificateInvalidError, ValueError):
            pass
        else:
            return f"certificate of {printable(subject[:_MAX_SHOWN_CHARS])}"
    text = raw.rstrip(b"\0\xff")
    if text.startswith(b"-----BEGIN "):
        return "PEM"
    try:
        decode_json(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "text" if text.isascii() and text.decode("ascii").strip().isprintable() else "bytes of another program"
    return "JSON"
