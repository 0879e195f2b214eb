"""An enrollment at Azure DPS: as it is wished, as it is on record, and how the two differ (DPS REST API).

What the SDK's models hold is read here by their attributes, and nothing is asked of anybody.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from birthmark.fleet.target import Change, EnrollmentRequest
from birthmark.pki.names import parse_registration_id

IDENTITY = frozenset({"certificate", "device id"})
"""What of a difference makes a record another device's."""


def registration_id(wish: EnrollmentRequest) -> str:
    """Return what the device registers as: its certificate's common name."""
    return wish.certificate.subject_cn or wish.device_id


def key_of(wish: EnrollmentRequest) -> str:
    """Return the registration id as it is compared. Raise `InvalidRequestError` for what none can be."""
    return parse_registration_id(registration_id(wish))


def json_of(wish: EnrollmentRequest) -> dict[str, Any]:
    """Return the record as JSON (Individual Enrollment)."""
    pair = {"primary": {"certificate": wish.certificate.pem()}}
    record: dict[str, Any] = {
        "registrationId": registration_id(wish),
        "deviceId": wish.device_id,
        "attestation": {"type": "x509", "x509": {"clientCertificates": pair}},
        "capabilities": {"iotEdge": wish.is_edge},
        "provisioningStatus": "enabled",
    }
    if (twin := twin_of(wish)) is not None:
        record["initialTwin"] = twin_json(twin)
    return (
        record | assigned_to(wish.hub) | {POLICY_NAMES[name]: text for name, text in policy_names(wish.issue).items()}
    )


def assigned_to(hub: str | None) -> dict[str, Any]:
    """Return the members of a record that say which one hub it gives; none where any will do."""
    return {} if hub is None else {"iotHubs": [hub], "allocationPolicy": "static"}


POLICY_NAMES: Mapping[str, str] = {
    "namespace_name": "namespaceName",
    "certificate_authority_name": "certificateAuthorityName",
    "certificate_policy_name": "certificatePolicyName",
}
"""What the models of the SDK do not know yet: by which policy devices are issued certificates (2026-11-01)."""
_OURS = "birthmark"


def policy_names(issue: str | None) -> dict[str, str]:
    """Return the members of a record that name a policy: POLICY, or NAMESPACE/CA/POLICY as Azure has them."""
    if issue is None:
        return {}
    parts = issue.split("/")
    three = parts if len(parts) == len(POLICY_NAMES) else [_OURS, _OURS, issue]
    return dict(zip(POLICY_NAMES, three, strict=True))


@dataclass(frozen=True, slots=True)
class InitialTwin:
    """What a device's twin begins with."""

    tags: Mapping[str, Any]
    desired: Mapping[str, Any]

    def __str__(self) -> str:
        return json.dumps({"tags": self.tags, "desired": self.desired}, sort_keys=True, separators=(",", ":"))


def twin_of(wish: EnrollmentRequest) -> InitialTwin | None:
    """Return the twin that is wished, None where nothing is said of it."""
    return InitialTwin(wish.tags, wish.desired) if wish.tags or wish.desired else None


@dataclass(frozen=True, slots=True)
class AzureRecord:
    """What decides on an individual enrollment that is there."""

    thumbprints: tuple[str, ...]
    device_id: str
    is_edge: bool
    is_disabled: bool
    twin: InitialTwin
    hubs: tuple[str, ...] = ()
    """Those it may give; empty: all that are linked."""
    issue: str | None = None
    """The policy by which devices are issued certificates."""

    def marks(self) -> bytes:
        """Return the marks of every wish that this record serves as it is: a million of them fit into memory."""
        if self.is_disabled:
            return b""
        said = (None, self.twin) if self.twin.tags or self.twin.desired else (None,)
        hubs = (None, *self.hubs) if len(self.hubs) == 1 else (None,)
        return b"".join(
            mark(one, self.device_id, twin, hub, issue, is_edge=self.is_edge)
            for one in self.thumbprints
            for twin in said
            for hub in hubs
            for issue in dict.fromkeys((None, self.issue))
        )

    def difference(self, wish: EnrollmentRequest) -> tuple[Change, ...]:
        """Return what is otherwise than wished."""
        thumbprint, twin = wish.certificate.thumbprint.hex(), twin_of(wish)
        pairs = [
            ("device id", self.device_id, wish.device_id, self.device_id.lower() == wish.device_id.lower()),
            ("IoT Edge", _yes(self.is_edge), _yes(wish.is_edge), self.is_edge == wish.is_edge),
            ("status", "disabled" if self.is_disabled else "enabled", "enabled", not self.is_disabled),
            ("initial twin", str(self.twin), str(twin), twin is None or str(twin) == str(self.twin)),
            ("policy", self.issue or "none", _policy(wish.issue) or "", _policy(wish.issue) in {None, self.issue}),
            ("hub", ", ".join(self.hubs) or "any", str(wish.hub), wish.hub is None or self._gives(wish.hub)),
        ]
        present = ", ".join(self.thumbprints) or "another attestation"
        pairs.insert(0, ("certificate", present, thumbprint, thumbprint in self.thumbprints))
        return tuple(Change(what, present, wanted) for what, present, wanted, is_same in pairs if not is_same)

    def _gives(self, hub: str) -> bool:
        return [one.lower() for one in self.hubs] == [hub.lower()]


def on_record(enrollment: Any) -> AzureRecord:
    """Return the SDK's `IndividualEnrollment` as far as it is decided on."""
    return AzureRecord(
        tuple(thumbprints(enrollment)),
        enrollment.device_id or enrollment.registration_id,
        is_edge(enrollment),
        enrollment.provisioning_status == "disabled",
        _initial_twin(enrollment),
        tuple([enrollment.iot_hub_host_name] if enrollment.iot_hub_host_name else enrollment.iot_hubs or ()),
        getattr(enrollment, "certificate_policy_name", None),
    )


def mark_of(wish: EnrollmentRequest) -> bytes:
    """Return the mark that a record has which serves the wish."""
    thumbprint, issue = wish.certificate.thumbprint.hex(), _policy(wish.issue)
    return mark(thumbprint, wish.device_id, twin_of(wish), wish.hub, issue, is_edge=wish.is_edge)


def mark(
    thumbprint: str,
    device_id: str,
    twin: InitialTwin | str | None,
    hub: str | None,
    issue: str | None = None,
    *,
    is_edge: bool,
) -> bytes:
    """Return 16 bytes that stand for a record."""
    said = f"{thumbprint} {device_id.lower()} {is_edge} {twin or ''} {(hub or '').lower()} {issue or ''}"
    return hashlib.blake2b(said.encode(), digest_size=16).digest()


def kept(record: Any) -> dict[str, Any]:
    """Return a record as the JSON that may be written."""
    return dict(record.serialize())


def is_edge(enrollment: Any) -> bool:
    return bool(enrollment.capabilities and enrollment.capabilities.iot_edge)


def thumbprints(enrollment: Any) -> list[str]:
    """Return the SHA-256 thumbprints (hex) of the device's own certificates."""
    x509 = enrollment.attestation.x509 if enrollment.attestation else None
    pair = x509.client_certificates if x509 else None
    entries = [pair.primary, pair.secondary] if pair else []
    return [entry.info.sha256_thumbprint.lower() for entry in entries if entry and entry.info]


def twin_json(twin: InitialTwin) -> dict[str, Any]:
    """Return a twin as an enrollment has it."""
    return {"tags": twin.tags, "properties": {"desired": twin.desired}}


def _initial_twin(enrollment: Any) -> InitialTwin:
    twin = _object(enrollment.twin)
    return InitialTwin(_values(twin.get("tags")), _values(_object(twin.get("properties")).get("desired")))


def _values(collection: object) -> dict[str, Any]:
    return {name: value for name, value in _object(collection).items() if not name.startswith("$")}


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _policy(issue: str | None) -> str | None:
    return policy_names(issue).get("certificate_policy_name")


def _yes(value: bool) -> str:
    return "yes" if value else "no"
