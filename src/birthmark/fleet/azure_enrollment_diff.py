"""An enrollment at Azure DPS: the request, the record, and their differences (DPS REST API).

Records in the SDK's models are read by their attributes, without requests.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from birthmark.fleet.enrollment_target import Change, EnrollmentRequest
from birthmark.pki.names_and_registration_ids import parse_registration_id

IDENTITY = frozenset({"certificate", "device id"})
"""Differences that identify the record of another device."""


def registration_id(request: EnrollmentRequest) -> str:
    """Return the device's registration ID: its certificate's common name."""
    return request.certificate.subject_cn or request.device_id


def key_of(request: EnrollmentRequest) -> str:
    """Return the registration ID in the form for comparison. Raise `InvalidRequestError` for an invalid one."""
    return parse_registration_id(registration_id(request))


def json_of(request: EnrollmentRequest) -> dict[str, Any]:
    """Return the record as JSON (Individual Enrollment)."""
    pair = {"primary": {"certificate": request.certificate.pem()}}
    record: dict[str, Any] = {
        "registrationId": registration_id(request),
        "deviceId": request.device_id,
        "attestation": {"type": "x509", "x509": {"clientCertificates": pair}},
        "capabilities": {"iotEdge": request.is_edge},
        "provisioningStatus": "enabled",
    }
    if (twin := twin_of(request)) is not None:
        record["initialTwin"] = twin_json(twin)
    return (
        record
        | assigned_to(request.hub)
        | {POLICY_NAMES[name]: text for name, text in policy_names(request.issue).items()}
    )


def assigned_to(hub: str | None) -> dict[str, Any]:
    """Return the members of a record that assign one hub; none for any hub."""
    return {} if hub is None else {"iotHubs": [hub], "allocationPolicy": "static"}


POLICY_NAMES: Mapping[str, str] = {
    "namespace_name": "namespaceName",
    "certificate_authority_name": "certificateAuthorityName",
    "certificate_policy_name": "certificatePolicyName",
}
"""Members that the SDK's models lack: the policy that issues device certificates (2026-11-01)."""
_OURS = "birthmark"


def policy_names(issue: str | None) -> dict[str, str]:
    """Return the members of a record that name a policy: POLICY, or NAMESPACE/CA/POLICY in Azure's form."""
    if issue is None:
        return {}
    parts = issue.split("/")
    three = parts if len(parts) == len(POLICY_NAMES) else [_OURS, _OURS, issue]
    return dict(zip(POLICY_NAMES, three, strict=True))


@dataclass(frozen=True, slots=True)
class InitialTwin:
    """Initial twin of a device."""

    tags: Mapping[str, Any]
    desired: Mapping[str, Any]

    def __str__(self) -> str:
        return json.dumps({"tags": self.tags, "desired": self.desired}, sort_keys=True, separators=(",", ":"))


def twin_of(request: EnrollmentRequest) -> InitialTwin | None:
    """Return the requested twin, None if the request has none."""
    return InitialTwin(request.tags, request.desired) if request.tags or request.desired else None


@dataclass(frozen=True, slots=True)
class AzureRecord:
    """Relevant state of an existing individual enrollment."""

    thumbprints: tuple[str, ...]
    device_id: str
    is_edge: bool
    is_disabled: bool
    twin: InitialTwin
    hubs: tuple[str, ...] = ()
    """Hubs that it may assign; empty: all linked hubs."""
    issue: str | None = None
    """The policy that issues the devices' certificates."""

    def marks(self) -> bytes:
        """Return the digests of every request that this record satisfies; a million of them fit into memory."""
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

    def difference(self, request: EnrollmentRequest) -> tuple[Change, ...]:
        """Return the differences from the request."""
        thumbprint, twin = request.certificate.thumbprint.hex(), twin_of(request)
        pairs = [
            ("device id", self.device_id, request.device_id, self.device_id.lower() == request.device_id.lower()),
            ("IoT Edge", _yes(self.is_edge), _yes(request.is_edge), self.is_edge == request.is_edge),
            ("status", "disabled" if self.is_disabled else "enabled", "enabled", not self.is_disabled),
            ("initial twin", str(self.twin), str(twin), twin is None or str(twin) == str(self.twin)),
            (
                "policy",
                self.issue or "none",
                _policy(request.issue) or "",
                _policy(request.issue) in {None, self.issue},
            ),
            ("hub", ", ".join(self.hubs) or "any", str(request.hub), request.hub is None or self._gives(request.hub)),
        ]
        present = ", ".join(self.thumbprints) or "another attestation"
        pairs.insert(0, ("certificate", present, thumbprint, thumbprint in self.thumbprints))
        return tuple(Change(what, present, wanted) for what, present, wanted, is_same in pairs if not is_same)

    def _gives(self, hub: str) -> bool:
        return [one.lower() for one in self.hubs] == [hub.lower()]


def on_record(enrollment: Any) -> AzureRecord:
    """Return the relevant state of the SDK's `IndividualEnrollment`."""
    return AzureRecord(
        tuple(thumbprints(enrollment)),
        enrollment.device_id or enrollment.registration_id,
        is_edge(enrollment),
        enrollment.provisioning_status == "disabled",
        _initial_twin(enrollment),
        tuple([enrollment.iot_hub_host_name] if enrollment.iot_hub_host_name else enrollment.iot_hubs or ()),
        getattr(enrollment, "certificate_policy_name", None),
    )


def mark_of(request: EnrollmentRequest) -> bytes:
    """Return the digest of a record that satisfies the request."""
    thumbprint, issue = request.certificate.thumbprint.hex(), _policy(request.issue)
    return mark(thumbprint, request.device_id, twin_of(request), request.hub, issue, is_edge=request.is_edge)


def mark(
    thumbprint: str,
    device_id: str,
    twin: InitialTwin | str | None,
    hub: str | None,
    issue: str | None = None,
    *,
    is_edge: bool,
) -> bytes:
    """Return a 16-byte digest of a record."""
    said = f"{thumbprint} {device_id.lower()} {is_edge} {twin or ''} {(hub or '').lower()} {issue or ''}"
    return hashlib.blake2b(said.encode(), digest_size=16).digest()


def kept(record: Any) -> dict[str, Any]:
    """Return a record as JSON with its writable members."""
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
    """Return a twin in the format of an enrollment."""
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
