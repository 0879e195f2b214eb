"""An enrollment group at Azure DPS: as it is wished, as it is on record, and how the two differ (DPS REST API).

It is read as the JSON that the service tells: the SDK's models know less of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from birthmark.fleet.azure_record_diff import POLICY_NAMES, assigned_to, policy_names
from birthmark.fleet.target import Change
from birthmark.pki.certificates import Certificate

_PLACES = ("primary", "secondary")


@dataclass(frozen=True, slots=True)
class GroupWish:
    """What is to be true of a group; of hub and policy what is None is left as it is.

    Its devices come by CAs on record, or by CA certificates given here, one and a second for a rollover; where
    neither is named, by keys that are derived from the group's.
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
        """Return who its devices are believed by, as JSON; shared keys without any, which the service makes then."""
        if self.has_keys:
            return {"type": "symmetricKey"}
        if self.ca_names:
            return {"type": "x509", "x509": {"caReferences": dict(zip(_PLACES, self.ca_names, strict=False))}}
        pems = [{"certificate": one.pem()} for one in self.certificates]
        return {"type": "x509", "x509": {"signingCertificates": dict(zip(_PLACES, pems, strict=False))}}

    def difference(self, told: Mapping[str, Any]) -> tuple[Change, ...]:
        """Return what is otherwise than wished in a group as the service tells it."""
        present, wanted = _attested(told.get("attestation") or {}), self._attested()
        is_edge = bool((told.get("capabilities") or {}).get("iotEdge"))
        status = str(told.get("provisioningStatus") or "enabled")
        policy = told.get(POLICY_NAMES["certificate_policy_name"])
        issue = policy_names(self.issue).get("certificate_policy_name")
        hubs = [told["iotHubHostName"]] if told.get("iotHubHostName") else told.get("iotHubs") or []
        is_given = self.hub is None or [one.lower() for one in hubs] == [self.hub.lower()]
        pairs = (
            ("attestation", present, wanted, present == wanted),
            ("IoT Edge", _yes(is_edge), _yes(self.is_edge), is_edge == self.is_edge),
            ("status", status, "enabled", status == "enabled"),
            ("policy", str(policy or "none"), str(issue), issue in {None, policy}),
            ("hub", ", ".join(hubs) or "any", str(self.hub), is_given),
        )
        return tuple(Change(what, present, wanted) for what, present, wanted, is_same in pairs if not is_same)

    def over(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Return a group as the service tells it with what is wished; all else stays as somebody set it."""
        made = dict(told) | {"attestation": self.attestation(), "provisioningStatus": "enabled"}
        made["capabilities"] = dict(told.get("capabilities") or {}) | {"iotEdge": self.is_edge}
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


_KEYS = "shared keys"


def _named(names: Sequence[str]) -> str:
    return "CA " + " and ".join(names)


def _carried(thumbprints: Sequence[str]) -> str:
    return "CA certificate " + " and ".join(thumbprints)


def _attested(attestation: Mapping[str, Any]) -> str:
    """Say whom a group's devices are believed by."""
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
