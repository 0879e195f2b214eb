"""Which of the names that a request asks for (subjectAltName) its certificate gets. Pure.

A profile that keeps names says which ones; a request with another is refused as a whole, so that nobody gets a
certificate that lacks what was asked for. A renewal keeps the names it has.
"""

import re
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network

from asn1crypto import core
from cryptography import x509

from birthmark.errors import PolicyError
from birthmark.pki.certificates import Certificate
from birthmark.pki.extensions import ASN1_TROUBLE
from birthmark.pki.name_constraints import is_host_name
from birthmark.pki.names import MAKE_REQUEST
from birthmark.pki.profiles import AllowedNames, Profile
from birthmark.text import printable

MAX_NAMES = 32
HARDWARE_MODULE_NAME = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.4")
_URI_ENDS = "/?#:"
_URI = re.compile(  # RFC 3986 appendix B; of an authority, host and port alone: who a user is, no certificate says
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):(?://(?P<authority>[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]*))?"
    r"(?P<path>[^?#\\\s]*)(?:\?[^#\\\s]*)?(?:#[^\\\s]*)?"
)
_DOTS = re.compile(r"(?:^|/)(?:\.|%2[eE]){1,2}(?:/|$)")
"""Parts of a path by which another is meant."""


class NamesRefusedError(PolicyError):
    """A name that was asked for is not allowed."""

    code = "ca.names_refused"
    cause = "The request asks for the name {name}, and the profile '{profile}' allows {allowed}."
    fix = f"Leave that name out of the request, or let [ca.profiles.NAME] allow it. {MAKE_REQUEST}"
    allowed: str
    name: str
    profile: str


def granted_names(
    asked: Sequence[x509.GeneralName], profile: Profile, *, held: Sequence[x509.GeneralName] = (), by_operator: bool
) -> tuple[x509.GeneralName, ...]:
    """Return the names for a certificate by `profile`. Raise `NamesRefusedError`.

    `held` are those of the certificate that is renewed: it keeps them, asked for or not.
    """
    if profile.names is None:
        return ()
    if held and list(asked) in ([], list(held)):
        return tuple(held)
    if len(asked) > MAX_NAMES:
        raise _refusal(f"number {MAX_NAMES + 1}", profile)
    for one in asked:
        if not _is_allowed(one, profile.names, by_operator=by_operator):
            raise _refusal(printable(str(getattr(one, "value", one)))[:80], profile)
    return tuple(dict.fromkeys(asked))


def _is_allowed(name: x509.GeneralName, allowed: AllowedNames, *, by_operator: bool) -> bool:
    match name:
        case x509.DNSName(value=str(host)):
            return is_host_name(host) and any(_is_below(host.lower(), one.lower()) for one in allowed.dns)
        case x509.IPAddress(value=address):
            network = address if isinstance(address, IPv4Network | IPv6Network) else ip_network(address)
            return network.num_addresses == 1 and any(_is_in(network, one) for one in allowed.networks)
        case x509.UniformResourceIdentifier(value=str(uri)):
            return uri.isprintable() and any(_begins(uri, one) for one in allowed.uris)
        case x509.OtherName(type_id=kind, value=value) if kind == HARDWARE_MODULE_NAME:
            return allowed.hardware_module and by_operator and is_hardware_module(value)
        case _:
            return False


def _is_below(host: str, domain: str) -> bool:
    return host == domain or host.endswith(f".{domain}")


def _is_in(network: IPv4Network | IPv6Network, allowed: IPv4Network | IPv6Network) -> bool:
    return network.version == allowed.version and network.network_address in allowed


def _begins(uri: str, prefix: str) -> bool:
    """Say whether a URI lies below an allowed one: of the same scheme, host and port, by whole parts (RFC 3986).

    What is allowed below https://example.org is not https://example.org.evil.example, nor https://example.org:80@evil.
    """
    if not uri.startswith(prefix):
        return False
    parts, allowed = _URI.fullmatch(uri), _URI.fullmatch(prefix)
    if parts is None or allowed is None or _DOTS.search(parts["path"]):
        return False
    if parts["scheme"] != allowed["scheme"] or parts["authority"] != allowed["authority"]:
        return False
    rest = uri.removeprefix(prefix)
    return not rest or prefix[-1] in _URI_ENDS or rest[0] in _URI_ENDS


def is_hardware_module(value: bytes) -> bool:
    """Say whether this is the value of a hardwareModuleName: which kind of chip, and its number there."""
    try:
        read = core.Sequence.load(value, strict=True)
        parts = [type(read[number]) for number in range(len(read))]
    except ASN1_TROUBLE:
        return False
    return parts == [core.ObjectIdentifier, core.OctetString]


def _refusal(name: str, profile: Profile) -> NamesRefusedError:
    allowed = profile.names or AllowedNames()
    words = [*(f"names below {one}" for one in allowed.dns), *(f"addresses in {one}" for one in allowed.networks)]
    words += [f"URIs that begin with {one}" for one in allowed.uris]
    if allowed.hardware_module:
        words.append("a hardwareModuleName from an operator")
    return NamesRefusedError(name=name, profile=profile.name, allowed=", ".join(words) or "none")


def check_taken_over(
    issued: Certificate, asked: Sequence[x509.GeneralName], granted: Sequence[x509.GeneralName], profile: Profile
) -> None:
    """Raise `NamesRefusedError` for what a CA elsewhere took over from a request that it should have left out.

    What such a CA says of its own is its own to say.
    """
    beyond = [one for one in asked if one not in granted]
    if beyond and any(one not in granted for one in names_in(issued)):
        raise _refusal(printable(str(getattr(beyond[0], "value", beyond[0])))[:80], profile)


def names_in(certificate: Certificate) -> tuple[x509.GeneralName, ...]:
    """Return the names in a certificate's subjectAltName, none where it has no such extension."""
    try:
        return tuple(certificate.parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return ()
