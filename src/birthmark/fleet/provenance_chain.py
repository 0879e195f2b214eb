"""Provenance of a device: a chain of links, and whether each one matches the previous one.

In:   the device's entries in a verified list, in the audit chain and in a server's inventory. Out:  links in order. No
requests are sent, and all input was verified before.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from birthmark.manifests.errors import ManifestError
from birthmark.manifests.manifest_entry import ManifestEntry

Row = Mapping[str, Any]


class ProvenanceState(StrEnum):
    """Verification status of a link."""

    HOLDS = "holds"
    BROKEN = "broken"
    NOT_CHECKED = "not checked"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class ProvenanceLink:
    """A link; its fields are the stable JSON form."""

    link: str
    state: ProvenanceState
    what: str
    by: str


def is_about(entry: ManifestEntry | ManifestError, identifier: str) -> bool:
    """Return whether an entry belongs to the device: by name, serial number of chip or board, or thumbprint."""
    if isinstance(entry, ManifestError):
        return entry.facts.get("unique_id", "").lower() == identifier.lower()
    names = {entry.device_id, entry.unique_id}
    names |= {entry.thumbprint.hex()} if entry.thumbprint is not None else set()
    return identifier.lower() in {name.lower() for name in names}


def links_of_list(found: Sequence[ManifestEntry | ManifestError]) -> list[ProvenanceLink]:
    """Return the links from a supplier's manifest or a bundle, of all entries about the device."""
    wrong = [one for one in found if isinstance(one, ManifestError)]
    links = [ProvenanceLink("manifest", ProvenanceState.BROKEN, one.explain_cause(), one.code) for one in wrong]
    good = [one for one in found if isinstance(one, ManifestEntry)]
    if not found:
        return [ProvenanceLink("manifest", ProvenanceState.MISSING, "no entry of the list is about it", "the list")]
    if len(good) > 1:  # a board's name may equal another device's, also in different case
        called = ", ".join(
            f"{one.unique_id} ({one.thumbprint.hex() if one.thumbprint else one.device_id})" for one in good
        )
        links.append(
            ProvenanceLink("manifest", ProvenanceState.BROKEN, f"several entries are called so: {called}", "the list")
        )
    return links + [link for one in good[:1] for link in _links_of_entry(one)]


def _links_of_entry(entry: ManifestEntry) -> list[ProvenanceLink]:
    intake, thumbprint = entry.intake, entry.thumbprint
    told = f"{entry.device_id}, {entry.part_number}, {entry.provisioned_at.isoformat()}"
    vouched = (
        f"signature of {entry.signer}" if entry.is_signed else f"the certificate; the list was signed by {entry.signer}"
    )
    signed = ProvenanceLink("manifest", ProvenanceState.HOLDS, told, vouched)
    if intake is None:
        proof = ProvenanceLink(
            "proof", ProvenanceState.NOT_CHECKED, "a supplier's manifest holds no proof of the chip", "nobody"
        )
    else:
        bound = f"chip on board {intake.board}, before {intake.operator}, at {intake.at.isoformat()}"
        proof = ProvenanceLink("proof", ProvenanceState.HOLDS, bound, "signature of the chip's own key")
    if thumbprint is None:
        return [
            signed,
            proof,
            ProvenanceLink("certificate", ProvenanceState.NOT_CHECKED, str(entry.unchecked), "nobody"),
        ]
    root = intake.checked_now if intake is not None else (entry.issuer and entry.issuer.issuer_text)
    state = ProvenanceState.HOLDS if root else ProvenanceState.NOT_CHECKED
    by = f"chain to {root}" if root else "no one: no root of its manufacturer was given"
    return [signed, proof, ProvenanceLink("certificate", state, f"thumbprint {thumbprint.hex()}", by)]


def links_of_server(
    device: str, factory: str | None, audited: Iterable[Row], certificates: Iterable[Row]
) -> list[ProvenanceLink]:
    """Return the links from a server's records.

    `factory` is the thumbprint of the listed certificate; without a list, the chain starts with the first recorded
    registration or certificate.
    """
    own = [row for row in audited if str(row["subject"]).lower() == device.lower()]
    issued = [row for row in certificates if row["profile"] != _OF_ANOTHER_CA]
    tied, renewals = _renewals(issued, factory)
    return [*_enrollments(own, tied, factory), *_registrations(own, tied, factory), *renewals]


_OF_ANOTHER_CA = "of another CA"


def _enrollments(own: Iterable[Row], tied: set[str], factory: str | None) -> list[ProvenanceLink]:
    links = []
    for row in own:
        detail, by = row["detail"], f"audit row {row['seq']} of chain {row['chain']}, by {row['actor']}"
        if row["action"] == "dps.enrollment_put":
            shown = detail.get("thumbprints")
            what = f"{detail.get('kind')} enrollment at {detail.get('scope')}, {row['at']}"
            what += "" if shown is None else f", with certificate {', '.join(shown)}"
            links.append(ProvenanceLink("enrollment", _state_of_enrollment(shown, tied, factory), what, by))
        elif row["action"] == "awsiot.thing_attach":
            shown = detail.get("certificate_id")
            state = ProvenanceState.HOLDS if factory in (None, shown) else ProvenanceState.BROKEN
            links.append(ProvenanceLink("enrollment", state, f"thing with certificate {shown}, {row['at']}", by))
    return links


def _state_of_enrollment(shown: Sequence[str] | None, tied: set[str], factory: str | None) -> ProvenanceState:
    """Return whether an enrollment accepts only this device's certificates; older audit rows do not list them."""
    if factory is None:
        return ProvenanceState.HOLDS
    if shown is None:
        return ProvenanceState.NOT_CHECKED
    return ProvenanceState.HOLDS if shown and set(shown) <= tied else ProvenanceState.BROKEN


def _registrations(own: Iterable[Row], tied: set[str], factory: str | None) -> list[ProvenanceLink]:
    links = []
    for row in own:
        if row["action"] != "dps.register":
            continue
        shown = row["detail"].get("thumbprint")
        is_tied = factory is None or shown in tied
        what = f"at {row['detail'].get('hub')} with certificate {shown}, {row['at']}"
        what += "" if is_tied else ": not in this device's chain"
        by = f"audit row {row['seq']} of chain {row['chain']}"
        links.append(
            ProvenanceLink("registration", ProvenanceState.HOLDS if is_tied else ProvenanceState.BROKEN, what, by)
        )
    return links


def _renewals(issued: Sequence[Row], factory: str | None) -> tuple[set[str], list[ProvenanceLink]]:
    """Return the thumbprints linked to the listed certificate, its own included, and a link per issued certificate."""
    tied = set() if factory is None else {factory}
    waiting = sorted(issued, key=lambda row: str(row["not_after"]))
    while some := [row for row in waiting if row["thumbprint"] not in tied and row.get("shown") in tied]:
        tied |= {row["thumbprint"] for row in some}
    links = []
    for row in waiting:
        is_tied = factory is None or row["thumbprint"] in tied
        shown = row.get("shown")
        asked = f"requested with certificate {shown}" if shown else f"requested by {row['requested_by']}"
        what = f"certificate {row['thumbprint']} until {row['not_after']}, {asked}"
        what += f"; revoked {row['revoked']}" if row["revoked"] else ""
        what += "" if is_tied else ": nothing ties it to the chip"
        links.append(
            ProvenanceLink(
                "renewal", ProvenanceState.HOLDS if is_tied else ProvenanceState.BROKEN, what, "the CA's inventory"
            )
        )
    return tied, links
