"""SASL frames and mechanisms of both ends (part 5 section 5.3). A server's caller verifies what the peer presents."""

from enum import IntEnum, StrEnum
from typing import Final

import msgspec

from birthmark.amqp.composite import (
    Binary,
    String,
    Symbols,
    SymbolText,
    UInt8,
    composite,
    decode_composite,
    encode_composite,
)
from birthmark.amqp.errors import AmqpCondition, AmqpError, LocalProtocolError, printable
from birthmark.amqp.framer import SASL_FRAME, encode_frame


class SaslMechanism(StrEnum):
    """Mechanisms that a server may offer."""

    MSSBCBS = "MSSBCBS"
    PLAIN = "PLAIN"
    ANONYMOUS = "ANONYMOUS"
    EXTERNAL = "EXTERNAL"
    TPM = "TPM"
    """Azure DPS: a challenge that only the TPM of the device can open."""


MAX_CHALLENGE_BYTES: Final = 480
"""Largest challenge: its frame has at most 512 bytes, as the standard requires of SASL frames."""


class SaslCode(IntEnum):
    """Outcome codes (part 5 section 5.3.3.6)."""

    OK = 0
    AUTH = 1
    SYS = 2
    SYS_TEMPORARY = 4


@composite(0x40, "amqp:sasl-mechanisms:list")
class SaslMechanisms(msgspec.Struct, frozen=True):
    """The server's offer."""

    sasl_server_mechanisms: Symbols


@composite(0x41, "amqp:sasl-init:list")
class SaslInit(msgspec.Struct, frozen=True):
    """The client's choice."""

    mechanism: SymbolText
    initial_response: Binary | None = None
    hostname: String | None = None

    def __repr__(self) -> str:
        return f"SaslInit(mechanism={self.mechanism!r}, initial_response=<hidden>, hostname={self.hostname!r})"


@composite(0x42, "amqp:sasl-challenge:list")
class SaslChallenge(msgspec.Struct, frozen=True):
    """The server's data for the mechanism."""

    challenge: Binary


@composite(0x43, "amqp:sasl-response:list")
class SaslResponse(msgspec.Struct, frozen=True):
    """The client's answer to a challenge."""

    response: Binary

    def __repr__(self) -> str:
        return "SaslResponse(response=<hidden>)"


@composite(0x44, "amqp:sasl-outcome:list")
class SaslOutcome(msgspec.Struct, frozen=True):
    """The server's decision."""

    code: UInt8
    additional_data: Binary | None = None


class SaslIdentity(msgspec.Struct, frozen=True):
    """Identity that the peer claims; a text is empty if its mechanism has none."""

    authentication_id: str = ""
    password: str = ""
    authorization_id: str = ""
    response: bytes = b""
    """Initial response of a mechanism with challenges."""

    def __repr__(self) -> str:
        return f"SaslIdentity(authentication_id={self.authentication_id!r}, password=<hidden>)"


def plain_init(authentication_id: str, password: str, hostname: str | None = None) -> SaslInit:
    """Return a client's choice of PLAIN (RFC 4616)."""
    return SaslInit(SaslMechanism.PLAIN, f"\0{authentication_id}\0{password}".encode(), hostname)


def external_init(authorization_id: str = "", hostname: str | None = None) -> SaslInit:
    """Return a client's choice of EXTERNAL: the identity of its TLS certificate."""
    return SaslInit(SaslMechanism.EXTERNAL, authorization_id.encode(), hostname)


def anonymous_init(hostname: str | None = None) -> SaslInit:
    """Return a client's choice of ANONYMOUS, for example before claims-based security."""
    return SaslInit(SaslMechanism.ANONYMOUS, b"", hostname)


def encode_init(init: SaslInit) -> bytes:
    """Return the frame with a client's choice."""
    return encode_frame(0, encode_composite(init), SASL_FRAME)


def decode_sasl(body: bytes) -> SaslMechanisms | SaslOutcome:
    """Return a frame of a server. Raise `AmqpError` for others, such as a challenge."""
    value, end = decode_composite(body)
    if not isinstance(value, SaslMechanisms | SaslOutcome) or end != len(body):
        raise AmqpError(AmqpCondition.NOT_IMPLEMENTED, "the SASL frame is neither mechanisms nor an outcome")
    return value


def encode_mechanisms(mechanisms: tuple[str, ...]) -> bytes:
    """Return the frame that offers the mechanisms."""
    return encode_frame(0, encode_composite(SaslMechanisms(mechanisms)), SASL_FRAME)


def encode_challenge(challenge: bytes) -> bytes:
    """Return the frame of a challenge. Raise `LocalProtocolError` if it is too large."""
    if len(challenge) > MAX_CHALLENGE_BYTES:
        raise LocalProtocolError(f"a SASL challenge has {len(challenge)} bytes")
    return encode_frame(0, encode_composite(SaslChallenge(challenge)), SASL_FRAME)


def encode_outcome(code: SaslCode) -> bytes:
    """Return the frame that ends the SASL layer."""
    return encode_frame(0, encode_composite(SaslOutcome(code)), SASL_FRAME)


def decode_init(body: bytes) -> SaslInit:
    """Return the client's SASL-INIT. Raise `AmqpError` for anything else."""
    value, end = decode_composite(body)
    if not isinstance(value, SaslInit) or end != len(body):
        raise AmqpError(AmqpCondition.NOT_ALLOWED, "SASL does not begin with SASL-INIT")
    return value


def decode_response(body: bytes) -> bytes:
    """Return the client's answer to a challenge. Raise `AmqpError` for any other frame."""
    value, end = decode_composite(body)
    if not isinstance(value, SaslResponse) or end != len(body):
        raise AmqpError(AmqpCondition.NOT_ALLOWED, "a SASL challenge is not followed by SASL-RESPONSE")
    return value.response


def read_identity(init: SaslInit, mechanisms: tuple[str, ...]) -> SaslIdentity:
    """Return the identity of an offered mechanism. Raise `AmqpError`."""
    if init.mechanism not in mechanisms:
        told = f"the SASL mechanism {printable(init.mechanism, 40)} is not offered"
        raise AmqpError(AmqpCondition.UNAUTHORIZED_ACCESS, told)
    if init.mechanism == SaslMechanism.PLAIN:
        return parse_plain(init.initial_response or b"")
    if init.mechanism == SaslMechanism.EXTERNAL:
        return SaslIdentity(authorization_id=_decode_text(init.initial_response or b""))
    if init.mechanism == SaslMechanism.TPM:
        return SaslIdentity(response=init.initial_response or b"")
    return SaslIdentity()


def parse_plain(response: bytes) -> SaslIdentity:
    """Parse a PLAIN response: authorization id, authentication id and password (RFC 4616). Raise `AmqpError`."""
    parts = response.split(b"\0")
    if len(parts) != 3 or not parts[1]:
        raise AmqpError(AmqpCondition.UNAUTHORIZED_ACCESS, "a PLAIN response does not have three parts")
    authorization_id, authentication_id, password = map(_decode_text, parts)
    return SaslIdentity(authentication_id, password, authorization_id)


def _decode_text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise AmqpError(AmqpCondition.UNAUTHORIZED_ACCESS, "a SASL response is not UTF-8") from None
