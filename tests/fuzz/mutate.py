"""Bytes, DER, text and JSON, made a little wrong. Every choice comes from the generator given, so a seed replays."""

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

Mutate = Callable[[Random, Sequence[bytes]], bytes]
MAX_INPUT_BYTES = 64 * 1024
_ODD_BYTES = (b"", b"\0", b"\xff", b"\x7f", b"\x80", b"\xff" * 4, b"\0" * 8, b"\xc3\x28", b"\xed\xa0\x80", b"\xf0\x9f")
_ODD_TEXTS = (
    "",
    " ",
    "\0",
    "\n",
    "%",
    "%00",
    "%ff",
    "%zz",
    "$",
    "#",
    "+",
    "/",
    "//",
    "?",
    "&",
    "=",
    ";",
    ":",
    "*",
    "${",
    "${a}",
    "é",
    "\u212a",
    "\u0663",
    "\U0001f600",
    "-1",
    "0",
    "1e999",
    "9" * 5000,
    "A" * 300,
    "\r\nX: y",
    "\x1b[31m",
)
_ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    2**31,
    2**63,
    2**64,
    -(2**63) - 1,
    10**400,
    0.1,
    1e308,
    [],
    {},
    [[]],
    [None],
    {"a": None},
    *_ODD_TEXTS,
)


def mutate_bytes(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """Flip, cut, repeat, insert, splice with another seed."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        at, end = sorted((rng.randint(0, len(data)), rng.randint(0, len(data))))
        match rng.randrange(8):
            case 0 if data:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            case 1 if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
            case 2:
                del data[at : min(end, at + rng.choice((1, 4, 64, len(data))))]
            case 3:
                data[at:at] = rng.choice(_ODD_BYTES)
            case 4:
                data[at:at] = data[at : min(end, at + 64)] * rng.choice((1, 2, 50))
            case 5:
                other = rng.choice(seeds)
                data[at:] = other[rng.randint(0, len(other)) :]
            case 6 if data:  # where lengths and counts live
                place = rng.randrange(len(data))
                data[place] = (data[place] + rng.choice((-1, 1, 2, 127))) & 0xFF
            case _:
                data[at:at] = rng.randbytes(rng.choice((1, 2, 16)))
    return bytes(data[:MAX_INPUT_BYTES])


# ---- DER: a tree of (tag, content or children), written back with lengths that fit


def read_der(data: bytes, depth: int = 0) -> list[list[Any]]:
    """Return the values in `data` as [tag, children or bytes]. Raise `ValueError` where it is not DER."""
    out: list[list[Any]] = []
    at = 0
    while at < len(data):
        if at + 2 > len(data) or data[at] & 0x1F == 0x1F:
            raise ValueError
        tag, length, at = data[at], data[at + 1], at + 2
        if length == 0x80:  # indefinite: not DER
            raise ValueError
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(data[at : at + size]), at + size
            if length < 0x80 or length.bit_length() <= 8 * (size - 1):  # not the shortest: not DER
                raise ValueError
        content = data[at : at + length]
        if len(content) != length:
            raise ValueError
        at += length
        out.append([tag, content])
        inner = content[1:] if tag == 0x03 and content[:1] == b"\0" else content
        is_wrapper = tag & 0x20 or tag == 0x04 or (tag == 0x03 and inner is not content)
        if depth < 24 and inner and is_wrapper:
            try:
                children = read_der(inner, depth + 1)
            except ValueError:
                continue
            out[-1][1] = children
    return out


def write_der(values: Sequence[Sequence[Any]]) -> bytes:
    return b"".join(tlv(tag, content) for tag, content in values)


def tlv(tag: int, content: Any) -> bytes:
    """Return one value; content is bytes, or values written one after the other."""
    body = content if isinstance(content, bytes) else (b"\0" if tag == 0x03 else b"") + write_der(content)
    if len(body) < 0x80:
        return bytes((tag, len(body))) + body
    size = (len(body).bit_length() + 7) // 8
    return bytes((tag, 0x80 | size)) + len(body).to_bytes(size) + body


def lists_of(values: list[list[Any]]) -> list[list[list[Any]]]:
    """Return every list of siblings that has a member."""
    found = [values] if values else []
    for _, content in values:
        if isinstance(content, list):
            found += lists_of(content)
    return found


_TAGS = (0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0A, 0x0C, 0x13, 0x14, 0x16, 0x17, 0x18, 0x1E, 0x1C, 0x30, 0x31)
_TAGS_OF_CHOICES = tuple(range(0x80, 0x8A)) + tuple(range(0xA0, 0xAA))
_CONTENTS = (
    b"",
    b"\0",
    b"\xff",
    b"\x80",
    b"\0\0",
    b"\x7f" + b"\xff" * 20,
    b"\xff" * 21,
    b"\x01" * 300,
    b"\xff" * 128,
    b"99991231235959Z",
    b"000000000000Z",
    b"500230000000Z",
    b"20260601120000.5Z",
    b"2606011200Z",
    b"260601120000+0100",
    b"\xc3\x28",
    b"a\0b",
    b"a_b@c*",
    bytes.fromhex("2a864886f70d010105"),
    bytes.fromhex("2a8648ce3d040302"),
    bytes.fromhex("2a8648ce3d030107"),
    bytes.fromhex("2b8104000a"),
    bytes.fromhex("2b6570"),
    bytes.fromhex("550403"),
    bytes.fromhex("551d11"),
    bytes.fromhex("551d12"),
    bytes.fromhex("551d0f"),
    bytes.fromhex("551d13"),
    bytes.fromhex("551d1e"),
    bytes.fromhex("551d1f"),
    bytes.fromhex("551d20"),
    bytes.fromhex("551d23"),
    bytes.fromhex("551d25"),
    bytes.fromhex("551d36"),
    bytes.fromhex("2b06010505070118"),
    bytes.fromhex("2b06010505070101"),
    bytes.fromhex("2b06010401d679020402"),
    bytes.fromhex("8080808001"),
)


def mutate_der(rng: Random, seeds: Sequence[bytes]) -> bytes:  # noqa: C901, PLR0912 - a table of changes
    """Change values of a tree and keep the lengths right, so that the change is seen by who reads its meaning."""
    if rng.random() < 0.15:
        return mutate_bytes(rng, seeds)
    seed = rng.choice(seeds)
    try:
        tree = read_der(seed)
    except ValueError:
        return mutate_bytes(rng, seeds)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        siblings = rng.choice(lists_of(tree) or [tree])
        if not siblings:
            break
        at = rng.randrange(len(siblings))
        match rng.randrange(9):
            case 0:
                siblings[at][0] = rng.choice(_TAGS)
            case 1:
                siblings[at][0] = rng.choice(_TAGS_OF_CHOICES)
            case 2 | 3:
                siblings[at][1] = rng.choice(_CONTENTS)
            case 4:
                del siblings[at]
            case 5:
                siblings[at:at] = [_copy(siblings[at]) for _ in range(rng.choice((1, 1, 1, 20)))]
            case 6:
                siblings[at] = _copy(rng.choice(siblings))
            case 7:
                siblings[at] = _copy(rng.choice(rng.choice(lists_of(tree))))
            case _:
                content = siblings[at][1]
                raw = content if isinstance(content, bytes) else write_der(content)
                siblings[at][1] = mutate_bytes(rng, [raw])[:4096]
        if len(write_der(tree)) > MAX_INPUT_BYTES:
            break
    return write_der(tree)[:MAX_INPUT_BYTES]


def _copy(value: list[Any]) -> list[Any]:
    tag, content = value
    return [tag, content if isinstance(content, bytes) else [_copy(part) for part in content]]


# ---- text and JSON


def mutate_text(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """Change a text between its separators; sometimes only its bytes."""
    if rng.random() < 0.2:
        return mutate_bytes(rng, seeds)
    text = rng.choice(seeds).decode("utf-8", "replace")
    for _ in range(rng.choice((1, 1, 2, 3))):
        marks = [at for at, char in enumerate(text) if not char.isalnum()] or [0]
        at, end = sorted((rng.choice(marks), rng.choice((*marks, len(text)))))
        match rng.randrange(6):
            case 0:
                text = text[:at] + rng.choice(_ODD_TEXTS) + text[at:]
            case 1:
                text = text[:at] + rng.choice(_ODD_TEXTS) + text[end:]
            case 2:
                text = text[:at] + text[at:end] * rng.choice((2, 2, 70)) + text[end:]
            case 3:
                text = text[:at] + text[end:]
            case 4:
                other = rng.choice(seeds).decode("utf-8", "replace")
                text = text[:at] + other[rng.randint(0, len(other)) :]
            case _:
                text = (
                    text[:at] + "".join(rng.choices("ab01+/=%&;$#-_.: \t\"'{}[]()|\\é", k=rng.randrange(8))) + text[at:]
                )
        text = text[:MAX_INPUT_BYTES]
    return text.encode("utf-8", "replace")[:MAX_INPUT_BYTES]


def change_json(rng: Random, value: Any) -> Any:  # noqa: C901 - a table of changes
    """Return the value with some of its parts replaced, removed or repeated."""
    places: list[tuple[Any, Any]] = []

    def walk(part: Any) -> None:
        if isinstance(part, dict | list):
            for key in part if isinstance(part, dict) else range(len(part)):
                places.append((part, key))
                walk(part[key])

    value = json.loads(json.dumps(value))
    walk(value)
    for _ in range(rng.choice((1, 1, 2, 3))):
        if not places:
            return rng.choice(_ODD_VALUES)
        holder, key = rng.choice(places)
        if (isinstance(holder, dict) and key not in holder) or (isinstance(holder, list) and key >= len(holder)):
            continue
        match rng.randrange(6):
            case 0 | 1:
                holder[key] = rng.choice(_ODD_VALUES)
            case 2:
                del holder[key]
            case 3 if isinstance(holder[key], str):
                holder[key] = mutate_text(rng, [holder[key].encode()]).decode("utf-8", "replace")
            case 4:
                holder[key] = [holder[key]] * rng.choice((1, 2, 50))
            case _ if isinstance(holder, dict):
                other = rng.choice(list(holder))
                holder[key], holder[other] = holder[other], holder[key]
            case _:
                holder.append(holder[key])
    return value


def mutate_json(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """Change the document; sometimes nest it deeply, sometimes only its text."""
    chance = rng.random()
    if chance < 0.2:
        return mutate_text(rng, seeds)
    if chance < 0.22:
        depth, (opened, closed) = rng.choice((50, 1000, 5000)), rng.choice((("[", "]"), ('{"a":', "}")))
        return (opened * depth + "1" + closed * depth).encode()
    document = change_json(rng, json.loads(rng.choice(seeds)))
    return json.dumps(document, ensure_ascii=rng.random() < 0.7).encode("utf-8", "replace")[:MAX_INPUT_BYTES]
