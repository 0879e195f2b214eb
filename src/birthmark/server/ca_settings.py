"""Configuration of the CA: `[ca]`, and custom profiles in `[ca.profiles.NAME]`."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_network
from typing import Annotated, Any, Literal

import msgspec
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from birthmark.ca.passphrase_sources import FORMS, SourceInvalidError, check_source
from birthmark.durations import lifetime_of
from birthmark.pki.certificate_profiles import FOR_REQUESTS, AllowedNames, CertificateProfile
from birthmark.pki.name_constraints import is_host_name
from birthmark.pki.revocation_urls import DistributionPoints

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_MAX_PROFILES = 64
_URL = re.compile(r"https?://[A-Za-z0-9._:\[\]-]{1,253}(/[A-Za-z0-9._~/-]{0,200})?")
_ARN = "^arn:aws[a-z-]*:acm-pca:[a-z0-9-]{1,32}:[0-9]{12}:certificate-authority/[0-9a-f-]{1,64}$"
_PURPOSES = {"clientAuth": ExtendedKeyUsageOID.CLIENT_AUTH, "serverAuth": ExtendedKeyUsageOID.SERVER_AUTH}
_USAGES = {
    "digitalSignature": "digital_signature",
    "contentCommitment": "content_commitment",
    "keyEncipherment": "key_encipherment",
    "dataEncipherment": "data_encipherment",
    "keyAgreement": "key_agreement",
}
_Base = Literal["device", "server", "edge_ca", "est_identity", "idevid", "ldevid"]
_Usage = Literal["digitalSignature", "contentCommitment", "keyEncipherment", "dataEncipherment", "keyAgreement"]
_Key = Literal["P-256", "P-384", "RSA", "RSA-2048", "RSA-3072", "RSA-4096"]


class CaSubject(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Fixed subject attributes of device certificates (RFC 5280 appendix A.1 limits their length)."""

    C: Annotated[str, msgspec.Meta(pattern="^[A-Z]{2}$")] | None = None
    ST: _Text | None = None
    L: _Text | None = None
    O: _Text | None = None  # noqa: E741 - the attribute's short name
    OU: _Text | None = None


class ProfileTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A profile in the configuration file; omitted settings come from its base profile."""

    based_on: _Base
    lifetime: str | None = None
    key_usage: tuple[_Usage, ...] | None = None
    extended_key_usage: tuple[str, ...] | None = None
    san: Literal["none", "keep"] | None = None
    san_dns: tuple[str, ...] = ()
    san_ip: tuple[str, ...] = ()
    san_uri: tuple[str, ...] = ()
    keys: tuple[_Key, ...] | None = None
    subject: CaSubject = CaSubject()
    serial_number: bool | None = None
    revocation: bool | None = None


class PrivateCaTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A certificate authority of AWS Private CA, which signs for this server."""

    arn: Annotated[str, msgspec.Meta(pattern=_ARN)]

    @property
    def region(self) -> str:
        return self.arn.split(":")[3]


class Ca(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of the CA: its revocation URLs, and the certificates that include them."""

    passphrase: str | None = None
    public_url: str | None = None
    revocation_beyond: str = "7d"
    profiles: dict[str, ProfileTable] = {}
    private_ca: PrivateCaTable | None = None
    edge_on_this_host: bool = False

    @property
    def places(self) -> DistributionPoints | None:
        return None if self.public_url is None else DistributionPoints(self.public_url.rstrip("/"))

    @property
    def told_beyond(self) -> timedelta:
        return lifetime_of(self.revocation_beyond)


def profiles_of(ca: Ca, built_in: Mapping[str, CertificateProfile] = FOR_REQUESTS) -> Mapping[str, CertificateProfile]:
    """Return the built-in profiles and those of a configuration that `mistakes_of` accepts."""
    return {**built_in, **{name: _profile(name, table, built_in) for name, table in ca.profiles.items()}}


def mistakes_of(ca: Ca) -> Iterator[tuple[str, str]]:
    """Yield the errors of values with valid types: the key, and the accepted values."""
    if ca.passphrase is not None and not _is_source(ca.passphrase):
        yield "ca.passphrase", f"must be {FORMS}"
    if ca.public_url is not None and not _URL.fullmatch(ca.public_url):
        yield "ca.public_url", "must be an address like http://pki.example.org"
    if not _is_lifetime(ca.revocation_beyond):
        yield "ca.revocation_beyond", f"must be like 12h, 30d or 365d, and is {ca.revocation_beyond!r}"
    if len(ca.profiles) > _MAX_PROFILES:
        yield "ca.profiles", f"has more than {_MAX_PROFILES} profiles"
    for name, table in ca.profiles.items():
        at = f"ca.profiles.{name}"
        if name in FOR_REQUESTS:
            yield at, "is built in: give yours a name of its own"
        elif not (name.isascii() and name.replace("_", "").replace("-", "").isalnum() and len(name) <= 64):  # noqa: PLR2004 - as long as a common name
            yield at, "must consist of letters, digits, - and _"
        for key, wrong in _wrong(table):
            yield f"{at}.{key}", wrong


def _wrong(table: ProfileTable) -> Iterator[tuple[str, str]]:
    yield from _wrong_for_a_ca(table)
    yield from _wrong_names(table)
    for key, values, parse, accepted in (
        ("lifetime", [table.lifetime] if table.lifetime is not None else [], lifetime_of, "like 12h, 30d or 365d"),
        (
            "extended_key_usage",
            table.extended_key_usage or (),
            _purpose,
            "clientAuth, serverAuth or an OID like 1.3.6.1",
        ),
        ("san_dns", table.san_dns, _domain, "domains like example.org"),
        ("san_ip", table.san_ip, ip_network, "networks like 10.0.0.0/8"),
        ("san_uri", table.san_uri, _prefix, "prefixes like urn:example:"),
    ):
        for one in values:
            try:
                parse(one)
            except ValueError:
                yield key, f"must be {accepted}, and is {one!r}"


def _wrong_for_a_ca(table: ProfileTable) -> Iterator[tuple[str, str]]:
    """Yield settings that a file must not change for a CA: path length, usages, and foreign names."""
    if not FOR_REQUESTS[table.based_on].is_ca:
        if table.extended_key_usage == ():
            yield "extended_key_usage", "must name a purpose, such as clientAuth"
        if table.key_usage == ():
            yield "key_usage", "must name a usage, such as digitalSignature"
        return
    for key in ("key_usage", "extended_key_usage", "san", "serial_number"):
        if getattr(table, key) is not None:
            yield key, "cannot be set for a profile that is based on edge_ca"


def _wrong_names(table: ProfileTable) -> Iterator[tuple[str, str]]:
    lists = [key for key in ("san_dns", "san_ip", "san_uri") if getattr(table, key)]
    keeps = table.san == "keep"
    if lists and not keeps:
        yield lists[0], 'counts only with san = "keep"'
    if keeps and not lists and not _allows_chips(FOR_REQUESTS[table.based_on]):
        yield "san", 'requires san_dns, san_ip or san_uri with "keep", to limit the names that a request may contain'


def _allows_chips(base: CertificateProfile) -> bool:
    return base.names is not None and base.names.hardware_module


def _profile(name: str, table: ProfileTable, built_in: Mapping[str, CertificateProfile]) -> CertificateProfile:
    base = built_in[table.based_on]
    changed: dict[str, Any] = {"name": name}
    if table.lifetime is not None:
        changed |= {"lifetime": lifetime_of(table.lifetime), "is_endless": False}
    if table.key_usage is not None:
        changed["key_usage"] = frozenset(_USAGES[one] for one in table.key_usage)
    if table.extended_key_usage is not None:
        changed["extended_key_usage"] = tuple(dict.fromkeys(map(_purpose, table.extended_key_usage)))
    if table.san is not None:
        changed["names"] = _names(table, base)
    if table.keys is not None:
        changed["key_kinds"] = frozenset(table.keys)
    if table.serial_number is not None:
        changed["has_serial_number"] = table.serial_number
    if table.revocation is not None:
        changed["revocation"] = table.revocation
    if subject := msgspec.to_builtins(table.subject):
        changed["subject"] = subject
    return replace(base, **changed)


def _names(table: ProfileTable, base: CertificateProfile) -> AllowedNames | None:
    if table.san == "none":
        return None
    networks = tuple(map(ip_network, table.san_ip))
    return AllowedNames(table.san_dns, networks, table.san_uri, hardware_module=_allows_chips(base))


def _is_source(text: str) -> bool:
    try:
        check_source(text)
    except SourceInvalidError:
        return False
    return True


def _is_lifetime(text: str) -> bool:
    try:
        lifetime_of(text)
    except ValueError:
        return False
    return True


def _purpose(text: str) -> ObjectIdentifier:
    return _PURPOSES.get(text) or ObjectIdentifier(text)


def _domain(text: str) -> str:
    if not is_host_name(text):
        raise ValueError(text)
    return text


def _prefix(text: str) -> str:
    scheme, colon, _ = text.partition(":")
    if not (colon and scheme.isalnum() and text.isprintable()):
        raise ValueError(text)
    return text
