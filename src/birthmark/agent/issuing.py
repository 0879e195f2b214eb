"""Getting a certificate: by EST, from a CA on the device, or self-signed."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from birthmark.agent.config.issuance import ATTRIBUTES
from birthmark.agent.config.model import EstIssuance, Issued, LocalIssuance, Preloaded
from birthmark.agent.identities import CertificateMissingError, HeldIdentity, IdentityStore
from birthmark.agent.keys import HeldKey
from birthmark.clock import Clock, Entropy
from birthmark.errors import ForbiddenError, PolicyError, UnauthenticatedError
from birthmark.est.client import EstClient
from birthmark.keys.private_key import as_private_key
from birthmark.links.errors import ServerUntrustedError
from birthmark.links.identity import Identity, Trust
from birthmark.links.ports import Links
from birthmark.pki.certificates import Certificate
from birthmark.pki.issue import Issuer, hash_for, issue, new_serial, self_signed
from birthmark.pki.profiles import DEVICE
from birthmark.text import printable, reason_of

TRUST_BUNDLE = "trust_bundle_cert"
MakeLinks = Callable[[Identity | None, Trust], Links]


class SubjectInvalidError(PolicyError):
    """The subject is not a name."""

    code = "agent.subject_invalid"
    cause = "The configured subject cannot be a distinguished name: {detail}."
    fix = (
        'Correct identity_cert.subject; C, for one, has exactly two letters: `subject = {{ CN = "device", C = "CH" }}`.'
    )
    detail: str


class CertificateNameError(PolicyError):
    """The certificate is for another name."""

    code = "agent.certificate_name"
    cause = "{url} issued a certificate for '{got}' where '{wanted}' was asked for; DPS would not know it."
    fix = (
        "The EST server chooses the name by user or bootstrap certificate. If that is this device's, take it: "
        '`registration_id = "{got}"`.'
    )
    got: str
    url: str
    wanted: str


def subject_of(issued: Issued) -> x509.Name:
    """Return the configured name, the common name last. Raise `SubjectInvalidError`."""
    try:
        others = [x509.NameAttribute(ATTRIBUTES[name], value) for name, value in issued.subject.items()]
        return x509.Name([*others, x509.NameAttribute(NameOID.COMMON_NAME, issued.common_name)])
    except ValueError as error:
        raise SubjectInvalidError(detail=printable(str(error))) from error


def est_trust(est: EstIssuance, system: Trust) -> Trust:
    """Return trust in exactly the configured files, else the system's. Raise `CertificateMissingError` and the like."""
    with _reading():
        return system if est.trusted is None else Trust.of(est.trusted)


@contextmanager
def trusting_by(key: str) -> Iterator[None]:
    """Let the refusal of a server's certificate name the configuration's key that says whom to trust."""
    try:
        yield
    except ServerUntrustedError as error:
        if type(error) is ServerUntrustedError:  # one for another name is not mended by trust
            error.reason += f"; whom to trust stands in {key} of the configuration"
        raise


@dataclass(frozen=True, slots=True)
class CertificateSource:
    """Issues for one configured identity."""

    issued: Issued
    identities: IdentityStore
    make_links: MakeLinks
    system_trust: Trust
    clock: Clock
    entropy: Entropy

    async def issue(self, key: HeldKey, current: HeldIdentity | None) -> tuple[Certificate, ...]:
        """Return a chain for `key`, leaf first, without the root. `current` proves who renews."""
        match self.issued.by:
            case EstIssuance() as est:
                return await self._by_est(est, key, current)
            case LocalIssuance() as local:
                return self._locally(local, key)
            case _:
                assert_never(self.issued.by)

    async def _by_est(self, est: EstIssuance, key: HeldKey, current: HeldIdentity | None) -> tuple[Certificate, ...]:
        """Ask as the current certificate; when that is not believed any more, as whoever introduced the device."""
        signing_key = as_private_key(key.handle)
        request = x509.CertificateSigningRequestBuilder(subject_of(self.issued))
        csr = request.sign(signing_key, hash_for(signing_key)).public_bytes(Encoding.DER)
        *before, last = self._proofs(est, current)
        for identity in before:
            with contextlib.suppress(UnauthenticatedError, ForbiddenError):
                return await self._ask(est, csr, identity)
        return await self._ask(est, csr, last)

    async def _ask(self, est: EstIssuance, csr: bytes, identity: Identity | None) -> tuple[Certificate, ...]:
        https = self.make_links(identity, est_trust(est, self.system_trust)).https()
        with trusting_by(TRUST_BUNDLE if est.trusted is None else "cert_issuance.est.trusted_certs"):
            got = await EstClient(est.url, https, est.auth.username, est.auth.password).enroll(csr)
        if got.leaf.subject_cn != self.issued.common_name:
            name = got.leaf.subject_cn or got.leaf.subject_text
            raise CertificateNameError(got=name, wanted=self.issued.common_name, url=est.url)
        return got.chain

    def _proofs(self, est: EstIssuance, current: HeldIdentity | None) -> list[Identity | None]:
        pair = est.auth.pair
        introduction = None if pair is None else self.identities.preloaded(pair).for_links()
        is_own = pair is not None and not pair.is_bootstrap
        return [introduction] if current is None or is_own else [current.for_links(), introduction]

    def _locally(self, local: LocalIssuance, key: HeldKey) -> tuple[Certificate, ...]:
        name, serial, now = subject_of(self.issued), new_serial(self.entropy), self.clock.now()
        lifetime = local.lifetime
        if local.ca is None:
            private_key = as_private_key(key.handle)
            return (self_signed(DEVICE, name, private_key, serial=serial, now=now, lifetime=lifetime),)
        ca = self.identities.preloaded(Preloaded(*local.ca))
        issuer = Issuer(ca.leaf, as_private_key(ca.key.handle))
        public_key = key.handle.public_key
        made = issue(DEVICE, name, public_key, issuer=issuer, serial=serial, now=now, lifetime=lifetime)
        return (made, *(one for one in ca.chain if not one.is_self_signed))


def cloud_trust(environment: Mapping[str, str], bundle: Path | None) -> Trust:
    """Return whom to believe as DPS and hub: the system's CAs (or SSL_CERT_FILE's), and those of trust_bundle_cert."""
    with _reading():
        trust = Trust.default(environment)
        return trust if bundle is None else trust.plus([bundle])


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CertificateMissingError(path=error.filename, reason=reason_of(error)) from error
