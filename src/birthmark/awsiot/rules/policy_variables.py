"""Policy variables `${…}`: values of a connection and their substitution.

See the developer guide, "AWS IoT Core policy variables".

Substituted values are literal: a `*` in a common name is no wildcard. A value with `+`, `#` or `/` is never substituted
in a topic or topic filter, as it would widen the policy.
"""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.x509.oid import NameOID

from birthmark.auth.policy_wildcards import ANY_ONE, Glob
from birthmark.awsiot.model import Thing
from birthmark.pki.certificates import UNREADABLE, Certificate

_VARIABLE = re.compile(r"\$\{([^{}]*)\}")
_LITERAL = {"*": "*", "?": "?", "$": "$"}  # ${*} is the literal character
_STAR = "\1"
_RISKY = frozenset("+#/")
_MARKS = frozenset((ANY_ONE, _STAR, "\2"))
_NO_TOPICS = ("client/", "thing/", "cert/", "policy/")

_NAME_PARTS = {
    "CommonName": NameOID.COMMON_NAME,
    "Country": NameOID.COUNTRY_NAME,
    "Organization": NameOID.ORGANIZATION_NAME,
    "OrganizationalUnit": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "State": NameOID.STATE_OR_PROVINCE_NAME,
    "SerialNumber": NameOID.SERIAL_NUMBER,
    "DistinguishedNameQualifier": NameOID.DN_QUALIFIER,
    "Title": NameOID.TITLE,
    "Surname": NameOID.SURNAME,
    "GivenName": NameOID.GIVEN_NAME,
    "Initials": NameOID.INITIALS,
    "Pseudonym": NameOID.PSEUDONYM,
    "GenerationQualifier": NameOID.GENERATION_QUALIFIER,
}
_ALTERNATIVES: Mapping[str, type[x509.GeneralName]] = {
    "RFC822Name": x509.RFC822Name,
    "DNSName": x509.DNSName,
    "UniformResourceIdentifier": x509.UniformResourceIdentifier,
    "IPAddress": x509.IPAddress,
}


@dataclass(frozen=True, slots=True)
class ConnectionContext:
    """A connection as presented; over HTTPS it has no client ID."""

    leaf: Certificate | None
    client_id: str | None
    address: str
    domain: str
    connect_attributes: tuple[str, ...] = ()
    chain: tuple[Certificate, ...] = ()
    """Unverified certificates sent with the leaf."""


@dataclass(frozen=True, slots=True)
class PolicyVariables:
    """Policy variables of one connection: values by key; most have exactly one.

    `aws:CurrentTime` and `aws:EpochTime` are not included; conditions evaluate them at run time.
    """

    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def one(self, key: str) -> str | None:
        """Return the first value of a key, or None."""
        found = self.values.get(_plain_key(key))
        return found[0] if found else None

    def all(self, key: str) -> tuple[str, ...]:
        """Return all values; none if the key is unknown."""
        return self.values.get(_plain_key(key), ())


def facts_of(
    certificate: Certificate | None,
    visitor: ConnectionContext,
    thing: Thing | None = None,
    more: Mapping[str, str] | None = None,
) -> PolicyVariables:
    """Return the variables of a connection. `thing` is only passed if the certificate is attached to it.

    `more` are variables of a client without a certificate, by key; empty ones are unknown.
    """
    values: dict[str, tuple[str, ...]] = {
        "aws:SourceIp": (visitor.address,),
        "aws:SecureTransport": ("true",),
        "iot:ConnectAttributes": visitor.connect_attributes,
        "iot:Connection.Thing.IsAttached": ("true" if thing else "false",),
    }
    if visitor.domain:
        values["iot:DomainName"] = (visitor.domain,)
    if visitor.client_id is not None:
        values["iot:ClientId"] = (visitor.client_id,)
    if thing is not None:
        values["iot:Connection.Thing.ThingName"] = (thing.name,)
        if thing.type_name:
            values["iot:Connection.Thing.ThingTypeName"] = (thing.type_name,)
        if thing.billing_group:
            values["iot:Connection.Thing.BillingGroupName"] = (thing.billing_group,)
        for name, value in thing.attributes.items():
            values[f"iot:Connection.Thing.Attributes[{name}]"] = (value,)
    if certificate is not None:
        _add_certificate(values, certificate)
    values |= {key: (text,) for key, text in (more or {}).items() if text}
    return PolicyVariables({_plain_key(key): texts for key, texts in values.items() if texts})


def _add_certificate(values: dict[str, tuple[str, ...]], certificate: Certificate) -> None:
    values["iot:Certificate.SerialNumber"] = (f"{certificate.serial:x}",)
    for side, side_name in (("Subject", certificate.subject), ("Issuer", certificate.issuer)):
        for part, oid in _NAME_PARTS.items():
            texts = tuple(str(attribute.value) for attribute in side_name.get_attributes_for_oid(oid))
            _add(values, f"iot:Certificate.{side}.{part}", texts)
    names = _alternative_names(certificate)
    for part, kind in _ALTERNATIVES.items():
        texts = tuple(str(alternative.value) for alternative in names if isinstance(alternative, kind))
        _add(values, f"iot:Certificate.Subject.AlternativeName.{part}", texts)
    available = tuple(key.removeprefix("iot:") for key in values if key.startswith("iot:Certificate."))
    values["iot:Certificate.AvailableKeys"] = available


class UnsafeVariableValue(enum.Enum):
    """Replacement for a value with `+`, `#` or `/` in a topic or topic filter, or with a wildcard anywhere.

    It always grants the least access.
    """

    FITS_NOTHING = None  # in an allow: statement does not apply
    IS_ANYTHING = _STAR  # in a deny
    IS_NOTHING = "\2"  # in an exception to a deny; AWS allows no control characters in topics


def substitute(
    pattern: str, facts: PolicyVariables, risky: UnsafeVariableValue = UnsafeVariableValue.FITS_NOTHING
) -> Glob | None:
    """Return the pattern with its variables substituted; None if one is unknown (the statement then matches nothing).

    `pattern` is a resource ARN or the value of a condition.
    """
    # In arn:aws:iot:REGION:ACCOUNT:topic/… the sixth part names the resource type; with a wildcard it may be a topic.
    is_topic = pattern.startswith("arn:") and not pattern.split(":", 5)[-1].startswith(_NO_TOPICS)
    parts: list[str] = []
    at = 0
    for found in _VARIABLE.finditer(pattern):
        parts.append(_wild(pattern[at : found.start()]))
        at = found.end()
        name = found[1]
        if name in _LITERAL:
            parts.append(name)
            continue
        value = facts.one(name)
        if value is None:
            return None
        # A value's own pattern characters would act as wildcards.
        if not _MARKS.isdisjoint(value) or (is_topic and not _RISKY.isdisjoint(value)):
            if risky.value is None:
                return None
            value = risky.value
        parts.append(value)
    parts.append(_wild(pattern[at:]))
    return Glob(tuple("".join(parts).split(_STAR)))


def is_plain(pattern: str) -> bool:
    """Return whether a pattern has no variables, so that it is the same for every connection."""
    return "${" not in pattern


def _plain_key(key: str) -> str:
    """Return a key for comparison, which ignores case except in an attribute's name."""
    head, bracket, name = key.partition("[")
    return head.lower() + bracket + name


def _wild(text: str) -> str:
    return text.replace("*", _STAR).replace("?", ANY_ONE)


def _add(values: dict[str, tuple[str, ...]], key: str, texts: tuple[str, ...]) -> None:
    if texts:
        values[key] = texts
        values[f"{key}.List"] = texts


def _alternative_names(certificate: Certificate) -> tuple[x509.GeneralName, ...]:
    try:
        found = certificate.parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (*UNREADABLE, x509.ExtensionNotFound, x509.DuplicateExtension):
        return ()
    return tuple(found.value)
