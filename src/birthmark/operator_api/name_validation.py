"""Validation of names that an operator assigns."""

import re

from birthmark.errors import InvalidRequestError
from birthmark.pki.hostname_verification import dns_name_of, is_host
from birthmark.untrusted_json_and_text import printable


class OperatorRequestError(InvalidRequestError):
    """The request is not valid."""

    code = "operator.request_invalid"
    message = "The request is not valid: {detail}"
    cause = "The operator interface rejected the request: {detail}."
    fix = "Change the request according to docs/reference/operator-api.md."
    for_a_person = "the client program has to be changed"
    detail: str


_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_OTHERS = re.compile("[^A-Za-z0-9._-]+")


class NameInvalidError(InvalidRequestError):
    """The name is not valid."""

    code = "operator.name_invalid"
    cause = "The name must have 1 to 64 characters: letters, digits, and - . _ only, with a letter or digit first."
    fix = "Choose another name, such as `{like}`."
    like: str
    name: str


class HostNameInvalidError(InvalidRequestError):
    """The host is not a DNS name or an address."""

    code = "operator.host_invalid"
    cause = "{host} is neither a DNS name nor an IP address, so a certificate cannot contain it."
    fix = "Use a name that consists of letters, digits, and hyphens: `birthmark {room} create {name} --host {known}`."
    host: str
    known: str
    name: str
    room: str


def parse_host(host: str, name: str, room: str) -> str:
    """Parse the host of a new service. Raise `HostNameInvalidError`."""
    if not is_host(host):
        known = dns_name_of(host) or f"{name}.example"
        raise HostNameInvalidError(host=f"'{printable(host[:100])}'", name=name, known=known, room=room)
    return host


def parse_name(text: str) -> str:
    """Parse the name of a new resource. Raise `NameInvalidError`."""
    if _NAME.fullmatch(text) is None:
        like = _OTHERS.sub("-", text)[:64].strip("-._") or "line-1"
        raise NameInvalidError(name=text[:64], like=like)
    return text
