"""Cross-certificates between two roots, which extend trust from one to the other (RFC 4210 section 4.4).

They are created on the machine with both keys. If that is another machine, they are imported from a file: both
cross-certificates, then both roots.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from birthmark import atomic_files
from birthmark.ca.hierarchy_files import alone_in, read_certificate
from birthmark.clock_and_entropy import Entropy
from birthmark.errors import PolicyError
from birthmark.pki.certificate_profiles import ROOT, CertificateProfile, Purpose
from birthmark.pki.certificates import Certificate, is_signed_by
from birthmark.pki.issuance import LeafIssuer, issue, new_serial

NEW_WITH_OLD, OLD_WITH_NEW = "new-with-old", "old-with-new"
_LINK: CertificateProfile = replace(ROOT, name="root_link")
_IN_A_FILE = 4


class LinksRefusedError(PolicyError):
    """The cross-certificates do not connect the two roots."""

    code = "ca.links_refused"
    message = "The cross-certificates cannot be installed: {detail}"
    fix = (
        "On the machine with both root keys, create cross-certificates for this server's root and the root in "
        "{path}: `birthmark ca root link root-ca --dir next-root-ca --out links.pem`."
    )
    detail: str
    path: Path


@dataclass(frozen=True, slots=True)
class CrossCertificates:
    """Both cross-certificates, and the roots that they connect."""

    new_with_old: Certificate
    old_with_new: Certificate
    new: Certificate
    old: Certificate

    def pem(self) -> str:
        return "".join(one.pem() for one in (self.new_with_old, self.old_with_new, self.new, self.old))


def link(of: Certificate, by: LeafIssuer, *, now: datetime, entropy: Entropy) -> Certificate:
    """Return the cross-certificate of a root's key by another root, valid while both are."""
    lifetime = min(of.not_after, by.certificate.not_after) - now
    serial = new_serial(entropy)
    return issue(_LINK, of.subject, of.public_key(), issuer=by, serial=serial, now=now, lifetime=lifetime)


def make_links(old: LeafIssuer, new: LeafIssuer, *, now: datetime, entropy: Entropy) -> CrossCertificates:
    """Create both cross-certificates of two roots."""
    there = link(new.certificate, old, now=now, entropy=entropy)
    back = link(old.certificate, new, now=now, entropy=entropy)
    return CrossCertificates(there, back, new.certificate, old.certificate)


def links_in(bundle: Sequence[Certificate]) -> CrossCertificates | None:
    """Return the cross-certificates in a bundle, or None if it does not have their structure."""
    if len(bundle) != _IN_A_FILE or not all(one.is_ca for one in bundle):
        return None
    found = CrossCertificates(*bundle)
    is_both = found.new_with_old.spki_der == found.new.spki_der and found.old_with_new.spki_der == found.old.spki_der
    return found if is_both and found.new.spki_der != found.old.spki_der else None


def install_links(directory: Path, links: CrossCertificates) -> None:
    """Install cross-certificates in the new root's `directory`.

    Raise `LinksRefusedError`; then nothing has changed.
    """
    with alone_in(directory):
        if (wrong := _wrong(directory, links)) is not None:
            raise LinksRefusedError(path=directory, detail=wrong)
        for name, one in ((NEW_WITH_OLD, links.new_with_old), (OLD_WITH_NEW, links.old_with_new)):
            atomic_files.replace(directory / f"{name}.pem", one.pem().encode(), mode=0o644)


def _wrong(directory: Path, links: CrossCertificates) -> str | None:
    here = read_certificate(directory, Purpose.ROOT) if (directory / "root.pem").exists() else None
    if here is None:
        return "no root is installed here; first install the CA certificates that the new root signed"
    if links.new != here:
        return f"they lead to the root {_short(links.new)}, and the one here is {_short(here)}"
    others = [one for one in directory.parent.glob("ca*/root.pem") if one.parent != directory]
    if links.old not in [read_certificate(one.parent, Purpose.ROOT) for one in others]:
        return f"they start at the root {_short(links.old)}, which no adjacent CA directory contains"
    if not (is_signed_by(links.new_with_old, links.old) and is_signed_by(links.old_with_new, links.new)):
        return "one is not signed by the root that it names"
    return None


def _short(root: Certificate) -> str:
    return f"{root.thumbprint.hex()[:16]}…"
