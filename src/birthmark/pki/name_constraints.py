"""Name constraints of a CA (RFC 5280 section 4.2.1.10 and 6.1.4 (g)).

A constraint applies only to names of its own form, in the certificate's subject and subjectAltName. Directory names,
DNS names, email addresses, IP addresses and URI hosts are compared. A constraint of another form refuses every
certificate with a name of that form, as the standard requires for unsupported forms.

Forms have asn1crypto's names: directory_name, dns_name, rfc822_name, ip_address, uniform_resource_identifier and
others. Values are text, or bytes (DER of a directory name's RDNs, an address).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

MAX_NAMES = 256
MAX_CONSTRAINTS = 256

Value = str | bytes | tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ConstrainedName:
    """One general name."""

    form: str
    value: Value


@dataclass(frozen=True, slots=True)
class NameConstraints:
    """Permitted and excluded subtrees.

    Without permitted subtrees of a form, all names of that form are permitted.
    """

    permitted: tuple[ConstrainedName, ...] = ()
    excluded: tuple[ConstrainedName, ...] = ()


class NameUnusableError(ValueError):
    """The name or constraint does not match its form."""


_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_IP4, _IP6 = 4, 16


def find_excluded_name(constraints: NameConstraints, names: Sequence[ConstrainedName]) -> ConstrainedName | None:
    """Return the first name that these constraints exclude, or None.

    Raise `NameUnusableError` for an unreadable name or constraint of a compared form.
    """
    if len(names) > MAX_NAMES or len(constraints.permitted) + len(constraints.excluded) > MAX_CONSTRAINTS:
        raise NameUnusableError("too many names or constraints")
    for constraint in (*constraints.permitted, *constraints.excluded):
        if constraint.form in _FORMS and not _FORMS[constraint.form].takes_constraint(constraint.value):
            raise NameUnusableError(f"the constraint on {constraint.form} is not well formed")
    for name in names:
        if name.form in _FORMS and not _FORMS[name.form].takes_name(name.value):
            raise NameUnusableError(f"{name.form} is not well formed")
        of_form = [one for one in constraints.permitted if one.form == name.form]
        forbidden = [one for one in constraints.excluded if one.form == name.form]
        if name.form not in _FORMS and (of_form or forbidden):
            return name
        if any(_matches(name, one) or _may_match(name, one) for one in forbidden):
            return name
        if of_form and not any(_matches(name, one) for one in of_form):
            return name
    return None


def _matches(name: ConstrainedName, constraint: ConstrainedName) -> bool:
    return _FORMS[name.form].matches(name.value, constraint.value)


def _may_match(name: ConstrainedName, constraint: ConstrainedName) -> bool:
    """Return whether a name may match a constraint; a wildcard may cover names inside and outside it."""
    if name.form != "dns_name":
        return False
    wildcard, domain = str(name.value).lower(), str(constraint.value).lower()
    return wildcard.startswith("*.") and domain.endswith(wildcard[1:])


def _directory(name: Value, constraint: Value) -> bool:
    assert isinstance(name, tuple)  # noqa: S101 - made by the extension reader
    assert isinstance(constraint, tuple)  # noqa: S101 - as above
    return name[: len(constraint)] == constraint


def _dns(name: Value, constraint: Value) -> bool:
    """Return whether a DNS constraint matches: `example.com` covers itself and subdomains; empty covers all."""
    host, domain = str(name).lower().removeprefix("*."), str(constraint).lower()
    return not domain or host == domain or host.endswith(f".{domain}")


def _email(name: Value, constraint: Value) -> bool:
    """Return whether an email constraint matches.

    `user@host` is one mailbox, `host` all mailboxes there, `.domain` all mailboxes below.
    """
    local, _, host = str(name).rpartition("@")
    wanted = str(constraint)
    if "@" in wanted:
        mailbox, _, where = wanted.rpartition("@")
        return mailbox == local and where.lower() == host.lower()
    if wanted.startswith("."):
        return host.lower().endswith(wanted.lower())
    return not wanted or host.lower() == wanted.lower()


def _address(name: Value, constraint: Value) -> bool:
    assert isinstance(name, bytes)  # noqa: S101 - as above
    assert isinstance(constraint, bytes)  # noqa: S101 - as above
    if len(constraint) != 2 * len(name):
        return False
    network, mask = constraint[: len(name)], constraint[len(name) :]
    return all(a & m == n & m for a, n, m in zip(name, network, mask, strict=True))


def _uri(name: Value, constraint: Value) -> bool:
    host = (urlsplit(str(name)).hostname or "").lower()
    wanted = str(constraint).lower()
    return host.endswith(wanted) if wanted.startswith(".") else host == wanted


def _is_domain(value: Value) -> bool:
    return not value or is_host_name(str(value))


def _is_mailbox(value: Value) -> bool:
    local, at, host = str(value).rpartition("@")
    return bool(local and at) and "@" not in local and is_host_name(host)


def _are_mailboxes(value: Value) -> bool:
    return not value or is_host_name(str(value).rpartition("@")[2].removeprefix("."))


def _is_address(value: Value) -> bool:
    return isinstance(value, bytes) and len(value) in {_IP4, _IP6}


def _is_network(value: Value) -> bool:
    return isinstance(value, bytes) and len(value) in {2 * _IP4, 2 * _IP6} and _is_mask(value)


def is_host_name(text: str) -> bool:
    """Return whether `text` has valid host name labels; underscores are permitted, as devices use them."""
    return 0 < len(text) <= 253 and all(_LABEL.fullmatch(label) for label in text.split("."))  # noqa: PLR2004 - RFC 1035


def _is_mask(value: bytes) -> bool:
    """Return whether the second half is a valid network mask: ones, then zeros."""
    bits = int.from_bytes(value[len(value) // 2 :])
    width = 8 * (len(value) // 2)
    inverted = bits ^ ((1 << width) - 1)
    return inverted & (inverted + 1) == 0


def _has_host(value: Value) -> bool:
    try:
        return bool(urlsplit(str(value)).hostname)
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class _Form:
    """A comparable name form: its well-formed names and constraints, and their matching."""

    matches: Callable[[Value, Value], bool]
    takes_name: Callable[[Value], bool] = lambda _: True
    takes_constraint: Callable[[Value], bool] = lambda _: True


_FORMS: Mapping[str, _Form] = {
    "directory_name": _Form(_directory),
    "dns_name": _Form(_dns, lambda value: is_host_name(str(value).removeprefix("*.")), _is_domain),
    "rfc822_name": _Form(_email, _is_mailbox, _are_mailboxes),
    "ip_address": _Form(_address, _is_address, _is_network),
    "uniform_resource_identifier": _Form(_uri, _has_host, lambda value: is_host_name(str(value).removeprefix("."))),
}
