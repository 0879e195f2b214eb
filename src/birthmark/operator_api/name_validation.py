"""Names that an operator gives."""

import re

from birthmark.errors import InvalidRequestError
from birthmark.pki.hostname_verification import dns_name_of, is_host
from birthmark.untrusted_text import printable


class OperatorRequestError(InvalidRequestError):
    """A request that no route takes as it is."""

    code = "operator.request_invalid"
    message = "The request is not valid: {detail}"
    cause = "The operator interface does not take the request: {detail}."
    fix = "Ask as docs/reference/operator-api.md says."
    for_a_person = "a program asked, and has to be changed"
    detail: str


_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_OTHERS = re.compile("[^A-Za-z0-9._-]+")


class NameInvalidError(InvalidRequestError):
    """The name cannot be used."""

    code = "operator.name_invalid"
    cause = "A name has 1 to 64 letters, digits and - . _, and begins with a letter or digit."
    fix = "Choose another name, such as `{like}`."
    like: str
    name: str


class HostNameInvalidError(InvalidRequestError):
    """The host is no DNS name and no address."""

    code = "operator.host_invalid"
    cause = "{host} is no DNS name and no address, so no certificate can have it."
    fix = "Give a name of letters, digits and hyphens: `birthmark {room} create {name} --host {known}`."
    host: str
    known: str
    name: str
    room: str


def parse_host(host: str, name: str, room: str) -> str:
    """Return the host of a service that an operator makes. Raise `HostNameInvalidError`."""
    if not is_host(host):
        known = dns_name_of(host) or f"{name}.example"
        raise HostNameInvalidError(host=f"'{printable(host[:100])}'", name=name, known=known, room=room)
    return host


def parse_name(text: str) -> str:
    """Return the name of something an operator makes. Raise `NameInvalidError`."""
    if _NAME.fullmatch(text) is None:
        like = _OTHERS.sub("-", text)[:64].strip("-._") or "line-1"
        raise NameInvalidError(name=text[:64], like=like)
    return text
