"""Where a device comes from: what was looked at, link by link, and whether each holds on to the one before.

In:   what a verified list says of the device, what the audit chain and the inventory of a server say.
Out:  links in their order. Nothing is asked here, and nothing believed that was not verified before.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from birthmark.manifests.errors import ManifestError
from birthmark.manifests.model import Entry

Row = Mapping[str, Any]


class State(StrEnum):
    """Whether a link holds."""

    HOLDS = "holds"
    BROKEN = "broken"
    NOT_CHECKED = "not checked"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Link:
    """One link; its fields are the stable JSON form."""

    link: str
    state: State
    what: str
    by: str


def is_about(entry: Entry | ManifestError, wanted: str) -> bool:
    """Say whether an entry is the device's: by its name, its chip's or board's serial number, or its thumbprint."""
    if isinstance(entry, ManifestError):
        return entry.facts.get("unique_id", "").lower() == wanted.lower()
    names = {entry.device_id, entry.unique_id}
    names |= {entry.thumbprint.hex()} if entry.thumbprint is not None else set()
    return wanted.lower() in {name.lower() for name in names}


def links_of_list(found: Sequence[Entry | ManifestError]) -> list[Link]:
    """Return the links that a supplier's manifest, or a bundle, gives; all entries that are about the device."""
    wrong = [one for one in found if isinstance(one, ManifestError)]
    links = [Link("manifest", State.BROKEN, one.explain_cause(), one.code) for one in wrong]
    good = [one for one in found if isinstance(one, Entry)]
    if not found:
        return [Link("manifest", State.MISSING, "no entry of the list is about it", "the list")]
    if len(good) > 1:  # a board may be called like another one's device, or like another one in other letters
        called = ", ".join(
            f"{one.unique_id} ({one.thumbprint.hex() if one.thumbprint else one.device_id})" for one in good
        )
        links.append(Link("manifest", State.BROKEN, f"several entries are called so: {called}", "the list"))
    return links + [link for one in good[:1] for link in _links_of_entry(one)]


def _links_of_entry(entry: Entry) -> list[Link]:
    intake, thumbprint = entry.intake, entry.thumbprint
    told = f"{entry.device_id}, {entry.part_number}, {entry.provisioned_at.isoformat()}"
    vouched = (
        f"signature of {entry.signer}" if entry.is_signed else f"the certificate; the list was signed by {entry.signer}"
    )
    signed = Link("manifest", State.HOLDS, told, vouched)
    if intake is None:
        proof = Link("proof", State.NOT_CHECKED, "a supplier's manifest holds no proof of the chip", "nobody")
    else:
        bound = f"chip on board {intake.board}, before {intake.operator}, at {intake.at.isoformat()}"
        proof = Link("proof", State.HOLDS, bound, "signature of the chip's own key")
    if thumbprint is None:
        return [signed, proof, Link("certificate", State.NOT_CHECKED, str(entry.unchecked), "nobody")]
    root = intake.checked_now if intake is not None else (entry.issuer and entry.issuer.issuer_text)
    state = State.HOLDS if root else State.NOT_CHECKED
    by = f"chain to {root}" if root else "nobody: no root of its maker was given"
    return [signed, proof, Link("certificate", state, f"thumbprint {thumbprint.hex()}", by)]


def links_of_server(
    device: str, factory: str | None, audited: Iterable[Row], certificates: Iterable[Row]
) -> list[Link]:
    """Return the links that a server's records give.

    `factory` is the thumbprint of the listed certificate; without a list the chain begins with the first registration
    or certificate that is on record.
    """
    own = [row for row in audited if str(row["subject"]).lower() == device.lower()]
    issued = [row for row in certificates if row["profile"] != _OF_ANOTHER_CA]
    tied, renewals = _renewals(issued, factory)
    return [*_enrollments(own, tied, factory), *_registrations(own, tied, factory), *renewals]


_OF_ANOTHER_CA = "of another CA"


def _enrollments(own: Iterable[Row], tied: set[str], factory: str | None) -> list[Link]:
    links = []
    for row in own:
        detail, by = row["detail"], f"audit row {row['seq']} of chain {row['chain']}, by {row['actor']}"
        if row["action"] == "dps.enrollment_put":
            shown = detail.get("thumbprints")
            what = f"{detail.get('kind')} enrollment at {detail.get('scope')}, {row['at']}"
            what += "" if shown is None else f", with certificate {', '.join(shown)}"
            links.append(Link("enrollment", _state_of_enrollment(shown, tied, factory), what, by))
        elif row["action"] == "awsiot.thing_attach":
            shown = detail.get("certificate_id")
            state = State.HOLDS if factory in (None, shown) else State.BROKEN
            links.append(Link("enrollment", state, f"thing with certificate {shown}, {row['at']}", by))
    return links


def _state_of_enrollment(shown: Sequence[str] | None, tied: set[str], factory: str | None) -> State:
    """Say whether a record takes this device's certificates alone; an older row of the chain does not tell them."""
    if factory is None:
        return State.HOLDS
    if shown is None:
        return State.NOT_CHECKED
    return State.HOLDS if shown and set(shown) <= tied else State.BROKEN


def _registrations(own: Iterable[Row], tied: set[str], factory: str | None) -> list[Link]:
    links = []
    for row in own:
        if row["action"] != "dps.register":
            continue
        shown = row["detail"].get("thumbprint")
        is_tied = factory is None or shown in tied
        what = f"at {row['detail'].get('hub')} with certificate {shown}, {row['at']}"
        what += "" if is_tied else ": none of this device's chain"
        by = f"audit row {row['seq']} of chain {row['chain']}"
        links.append(Link("registration", State.HOLDS if is_tied else State.BROKEN, what, by))
    return links


def _renewals(issued: Sequence[Row], factory: str | None) -> tuple[set[str], list[Link]]:
    """Return the thumbprints that are tied to the listed certificate, itself included, and a link for each issued."""
    tied = set() if factory is None else {factory}
    waiting = sorted(issued, key=lambda row: str(row["not_after"]))
    while some := [row for row in waiting if row["thumbprint"] not in tied and row.get("shown") in tied]:
        tied |= {row["thumbprint"] for row in some}
    links = []
    for row in waiting:
        is_tied = factory is None or row["thumbprint"] in tied
        shown = row.get("shown")
        asked = f"asked for with certificate {shown}" if shown else f"asked for by {row['requested_by']}"
        what = f"certificate {row['thumbprint']} to {row['not_after']}, {asked}"
        what += f"; taken back {row['revoked']}" if row["revoked"] else ""
        what += "" if is_tied else ": nothing ties it to the chip"
        links.append(Link("renewal", State.HOLDS if is_tied else State.BROKEN, what, "the CA's inventory"))
    return tied, links
