"""Host name verification of a certificate (RFC 9525, names in subjectAltName only).

For your own server certificate, before it is served; the clients' TLS libraries verify names themselves.
"""

import ipaddress
from collections.abc import Sequence
from contextlib import suppress

from birthmark.pki.certificates import Certificate
from birthmark.pki.extension_parser import names_of
from birthmark.pki.name_constraints import is_host_name
from birthmark.pki.single_certificate_checks import ChainError


def find_host_error(host: str) -> str:
    """Return why this is neither a DNS name nor an address, with its IDNA form; empty if valid."""
    if is_host(host):
        return ""
    known = dns_name_of(host)
    return f"which DNS has as {known}" if known else "which is neither a DNS name nor an address"


def is_host(text: str) -> bool:
    """Return whether a text is a DNS name or an address."""
    with suppress(ValueError):
        ipaddress.ip_address(text)
        return True
    return is_host_name(text)


def dns_name_of(text: str) -> str:
    """Return the IDNA form of a name in another script; empty if there is none."""
    with suppress(UnicodeError):
        known = text.encode("idna").decode()
        return known if is_host_name(known) else ""
    return ""


def check_host(certificate: Certificate, host: str) -> None:
    """Raise `ChainError` unless a DNS name or an address of the certificate is `host`."""
    try:
        names = names_of(certificate.der)
    except (ValueError, TypeError):
        names = ()
    try:
        address = ipaddress.ip_address(host.strip("[]")).packed
    except ValueError:
        found = [str(name.value) for name in names if name.form == "dns_name"]
        is_covered = "_" not in host and is_host_name(host) and any(_covers(name, host) for name in found)
    else:
        is_covered = any(name.form == "ip_address" and name.value == address for name in names)
    if not is_covered:
        has = ", ".join(hosts_of(certificate)) or "no host"
        raise ChainError(detail=f"it is for another host: it has {has}")


def hosts_of(certificate: Certificate) -> Sequence[str]:
    """Return the certificate's host names and addresses as text; empty if unreadable."""
    try:
        return [_shown(name.form, name.value) for name in names_of(certificate.der) if name.form in _HOSTS]
    except (ValueError, TypeError):
        return ()


_HOSTS = {"dns_name", "ip_address"}


def _covers(name: str, host: str) -> bool:
    """Return whether `name` matches `host`; a wildcard matches one complete label, the first."""
    name, host = name.lower(), host.lower()
    if name.startswith("*."):
        return is_host_name(name[2:]) and host.partition(".")[2] == name[2:]
    return is_host_name(name) and name == host


def _shown(form: str, value: object) -> str:
    if form == "ip_address" and isinstance(value, bytes):
        try:
            return str(ipaddress.ip_address(value))
        except ValueError:
            return value.hex()
    return ascii(value)[1:-1]
