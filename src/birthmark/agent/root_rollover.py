"""Root rollover: follows new roots whose keys a trusted root has certified.

An EST server distributes such a cross-certificate (NewWithOld, RFC 4210 section 4.4) during its root rollover. A
followed root is saved with the root that led to it. It is trusted only where that root is trusted. The issuer of this
device's certificates therefore cannot choose the device's hub.
"""

import base64
import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from birthmark.agent.state_directory import write_file
from birthmark.device_transports.identity_and_trust import ServerTrust
from birthmark.errors import BirthmarkError
from birthmark.pki import single_certificate_checks
from birthmark.pki.certificates import MAX_BUNDLE_BYTES, Certificate, parse_bundle
from birthmark.pki.extension_parser import SERVER_AUTH
from birthmark.pki.path_validation import SignatureCache, Signatures, TooMuchWorkError, build_chain, check_dates
from birthmark.pki.single_certificate_checks import ChainError

log = logging.getLogger(__name__)
MAX_STEPS = 8


@dataclass(frozen=True, slots=True)
class TrustStep:
    """A trusted root, the cross-certificate it issued, and the new root that is trusted through it."""

    known: Certificate
    link: Certificate
    root: Certificate


def steps_in(bag: Sequence[Certificate], now: datetime) -> Iterator[TrustStep]:
    """Yield every rollover step in an EST server's certificates, whether or not it starts at a trusted root.

    Roots and cross-certificates must meet the rules for chains (RFC 5280 section 6); the number of signature checks is
    bounded.
    """
    work = Signatures(SignatureCache())
    sound = [one for one in bag if _is_sound(one, now)]
    with suppress(TooMuchWorkError):
        roots = [one for one in sound if work.is_self_signed(one)]
        links = [one for one in sound if not one.is_self_issued or one not in roots]
        for root in roots:
            for link in links:
                if (link.spki_der, link.subject_der) != (root.spki_der, root.subject_der) or not _is_unbound(link):
                    continue
                for known in roots:
                    if (
                        known != root
                        and link.issuer_der == known.subject_der
                        and _has_certified(known, link, now, work)
                    ):
                        yield TrustStep(known, link, root)


def reached(trust: ServerTrust, steps: Sequence[TrustStep]) -> list[Certificate]:
    """Return the roots that the steps add to `trust`."""
    told = "".join((trust.pem or "").split())
    found: list[Certificate] = []
    for _ in steps:  # independent of learning order
        for step in steps:
            is_known = _is_in(step.known, told) or step.known in found
            if is_known and step.root not in found and not _is_in(step.root, told):
                found.append(step.root)
    return found


@dataclass(slots=True)
class FollowedAnchors:
    """Stored rollover steps."""

    path: Path

    def beyond(self, trust: ServerTrust) -> ServerTrust:
        """Return `trust` with the roots reached from it."""
        roots = reached(trust, self._read())
        return trust.including("".join(root.pem() for root in roots)) if roots else trust

    def learn(self, trust: ServerTrust, bag: Sequence[Certificate], now: datetime) -> None:
        """Save the steps that start at trusted roots. Raise `StateNotWritableError`."""
        before = self._read()
        steps = list(dict.fromkeys([*before, *steps_in(bag, now)]))
        wanted = reached(trust, steps)
        kept = [step for step in steps if step in before or step.root in wanted][-MAX_STEPS:]
        if kept == before:
            return
        for step in kept:
            if step not in before:
                facts = {"root": step.root.thumbprint.hex(), "by": step.known.thumbprint.hex()}
                log.warning("anchor.followed", extra=facts)
        every = (one for step in kept for one in (step.known, step.link, step.root))
        write_file(self.path, "".join(one.pem() for one in every).encode())

    def _read(self) -> list[TrustStep]:
        """Return the stored steps; unreadable ones are dropped and learned again."""
        with suppress(OSError, BirthmarkError), self.path.open("rb") as file:
            found = parse_bundle(file.read(MAX_BUNDLE_BYTES))
            steps = (TrustStep(*found[n : n + 3]) for n in range(0, len(found) - 2, 3))
            return [step for step in steps if _is_sound(step.link) and _is_sound(step.root)]
        return []


def _is_sound(certificate: Certificate, now: datetime | None = None) -> bool:
    """Return whether it is a valid CA certificate for servers, also at `now`; signatures are checked separately."""
    says = certificate.extensions
    if not says.is_ca or says.unknown_critical or "key_cert_sign" not in (says.key_usage or {"key_cert_sign"}):
        return False
    try:
        single_certificate_checks.check_ca(certificate)
        single_certificate_checks.check_purpose(certificate, SERVER_AUTH)
        if now is not None:
            check_dates(certificate, now)
    except ChainError:
        return False
    return True


def _has_certified(certificate: Certificate, link: Certificate, now: datetime, work: Signatures) -> bool:
    try:
        build_chain(link, [], [certificate], now, cache=work)
    except TooMuchWorkError:
        raise
    except ChainError:
        return False
    return True


def _is_unbound(link: Certificate) -> bool:
    """Return whether a cross-certificate is unconstrained; one for a CA below a root must not make it a root."""
    return link.extensions.path_length is None and link.extensions.name_constraints_der is None


def _is_in(certificate: Certificate, told: str) -> bool:
    """Return whether a PEM text without white space contains the certificate; avoids parsing large bundles."""
    return base64.b64encode(certificate.der).decode() in told
