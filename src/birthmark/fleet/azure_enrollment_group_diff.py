"""An enrollment group at Azure DPS: the request, the record, and their differences (DPS REST API).

It is read as the service's JSON, because the SDK's models lack members.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from birthmark.fleet.azure_enrollment_diff import POLICY_NAMES, assigned_to, policy_names
from birthmark.fleet.enrollment_target import Change
from birthmark.pki.certificates import Certificate

_PLACES = ("primary", "secondary")


@dataclass(frozen=True, slots=True)
class DesiredGroup:
    """Requested state of a group; a hub or policy of None remains unchanged.

    Its devices use registered CAs, or given CA certificates: one, and a second for a root rollover. Without either,
    they use keys derived from the group's keys.
    """

    ca_names: Sequence[str] = ()
    certificates: Sequence[Certificate] = ()
    is_edge: bool = False
    hub: str | None = None
    issue: str | None = None

    @property
    def has_keys(self) -> bool:
        return not (self.ca_names or self.certificates)

    def attestation(self) -> dict[str, Any]:
        """Return the group's attestation as JSON; for symmetric keys without values, the service generates them."""
        if self.has_keys:
            return {"type": "symmetricKey"}
        if self.ca_names:
            return {"type": "x509", "x509": {"caReferences": dict(zip(_PLACES, self.ca_names, strict=False))}}
        pems = [{"certificate": one.pem()} for one in self.certificates]
        return {"type": "x509", "x509": {"signingCertificates": dict(zip(_PLACES, pems, strict=False))}}

    def difference(self, values: Mapping[str, Any]) -> tuple[Change, ...]:
        """Return the differences of a group, in the service's form, from the request."""
        present, wanted = _attested(values.get("attestation") or {}), self._attested()
        is_edge = bool((values.get("capabilities") or {}).get("iotEdge"))
        status = str(values.get("provisioningStatus") or "enabled")
        policy = values.get(POLICY_NAMES["certificate_policy_name"])
        issue = policy_names(self.issue).get("certificate_policy_name")
        hubs = [values["iotHubHostName"]] if values.get("iotHubHostName") else values.get("iotHubs") or []
        is_given = self.hub is None or [one.lower() for one in hubs] == [self.hub.lower()]
        pairs = (
            ("attestation", present, wanted, present == wanted),
            ("IoT Edge", _yes(is_edge), _yes(self.is_edge), is_edge == self.is_edge),
            ("status", status, "enabled", status == "enabled"),
            ("policy", str(policy or "none"), str(issue), issue in {None, policy}),
            ("hub", ", ".join(hubs) or "any", str(self.hub), is_given),
        )
        return tuple(Change(what, present, wanted) for what, present, wanted, is_same in pairs if not is_same)

    def over(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return a group, in the service's form, with the request applied; all other members remain."""
        made = dict(values) | {"attestation": self.attestation(), "provisioningStatus": "enabled"}
        made["capabilities"] = dict(values.get("capabilities") or {}) | {"iotEdge": self.is_edge}
        if self.hub is not None:
            made.pop("iotHubHostName", None)
        issued = {POLICY_NAMES[name]: text for name, text in policy_names(self.issue).items()}
        return made | assigned_to(self.hub) | issued

    def _attested(self) -> str:
        if self.has_keys:
            return _KEYS
        if self.ca_names:
            return _named(self.ca_names)
        return _carried([one.thumbprint.hex() for one in self.certificates])


_KEYS = "symmetric keys"


def _named(names: Sequence[str]) -> str:
    return "CA " + " and ".join(names)


def _carried(thumbprints: Sequence[str]) -> str:
    return "CA certificate " + " and ".join(thumbprints)


def _attested(attestation: Mapping[str, Any]) -> str:
    """Return a text for a group's attestation."""
    if attestation.get("type") == "symmetricKey":
        return _KEYS
    x509 = attestation.get("x509") or {}
    if (named := x509.get("caReferences")) is not None:
        return _named([str(named[place]) for place in _PLACES if named.get(place)])
    pair = x509.get("signingCertificates") or {}
    infos = [(pair[place].get("info") or {}) for place in _PLACES if pair.get(place)]
    return _carried([str(info.get("sha256Thumbprint")).lower() for info in infos])


def _yes(value: bool) -> str:
    return "yes" if value else "no"
