"""Certificates and keys of one agent: configured identities, and the slots of issued ones."""

from dataclasses import dataclass
from pathlib import Path

from birthmark.agent.certificate_slot import HeldIdentity, Slot
from birthmark.agent.config.model import PreloadedIdentity
from birthmark.agent.key_store import KeyStore
from birthmark.agent.state_directory import AgentPaths
from birthmark.errors import NotFoundError, about
from birthmark.pki.certificates import MAX_BUNDLE_BYTES, parse_bundle
from birthmark.untrusted_json_and_text import reason_of


class CertificateMissingError(NotFoundError):
    """A certificate cannot be read."""

    code = "agent.certificate_missing"
    cause = "The certificate {path} cannot be read: {reason}."
    fix = (
        "Copy the certificate to that path, or correct the path. To set SSL_CERT_FILE for a Birthmark server: `eval "
        '"$(birthmark env)"`. To print a configuration that names existing files: `birthmark env --format aziot '
        '--registration-id "$(hostname)"`.'
    )
    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class IdentityStore:
    """Lookup of identities."""

    places: AgentPaths
    keys: KeyStore

    def slot(self, certificate_id: str) -> Slot:
        return Slot(certificate_id, self.places, self.keys)

    def preloaded(self, identity: PreloadedIdentity) -> HeldIdentity:
        """Return the chain and key of an identity in the configuration."""
        try:
            with about(identity.certificate), identity.certificate.open("rb") as file:
                chain = parse_bundle(file.read(MAX_BUNDLE_BYTES + 1))
        except OSError as error:
            raise CertificateMissingError(path=identity.certificate, reason=reason_of(error)) from error
        return HeldIdentity(chain, self.keys.open_at(identity.key))
