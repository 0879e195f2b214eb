"""Certificate issuance: over EST, by Azure, from a CA on the device, or self-signed.

EST requests try the EST identity first, then the certificate to renew, then the bootstrap credentials. An expired
certificate is also tried, as the server may permit late renewal. After a refusal the next one is tried. The client
waits only where the server requests it.
"""

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import assert_never

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from birthmark.agent.certificate_slot import HeldIdentity
from birthmark.agent.config.certificate_issuance import ATTRIBUTES
from birthmark.agent.config.model import (
    AzureIssuance,
    EstIssuance,
    IssuedIdentity,
    LocalIssuance,
    PreloadedIdentity,
)
from birthmark.agent.key_store import HeldKey
from birthmark.agent.managed_certificate_list import EXTENSIONS, CertificateUse, ManagedCertificate
from birthmark.agent.preloaded_and_issued_identities import CertificateMissingError, IdentityStore
from birthmark.agent.root_rollover import FollowedAnchors
from birthmark.agent.state_directory import LOCAL_CA
from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.device_transports.errors import LinkLostError, ServerUntrustedError
from birthmark.device_transports.identity_and_trust import Identity, ServerTrust
from birthmark.device_transports.ports import Links
from birthmark.dps.client import HubAssignment
from birthmark.dps.wire import AnswerInvalidError
from birthmark.errors import BirthmarkError, ForbiddenError, PolicyError, UnauthenticatedError
from birthmark.est.client import EnrollmentResponse as EnrolledCertificate
from birthmark.est.client import EstClient, EstServerBusyError
from birthmark.iothub.client import HubClient, NotIssuedError
from birthmark.keys.cryptography_key_adapter import as_private_key
from birthmark.pki.certificates import Certificate, is_signed_by
from birthmark.pki.csr import parse_csr
from birthmark.pki.issuance import LeafIssuer, hash_for, issue, new_serial, self_signed
from birthmark.untrusted_json_and_text import printable, reason_of

TRUST_BUNDLE = "trust_bundle_cert"
MakeLinks = Callable[[Identity | None, ServerTrust], Links]


class SubjectInvalidError(PolicyError):
    """The subject is not a distinguished name."""

    code = "agent.subject_invalid"
    cause = "The configured subject is not a distinguished name: {detail}."
    fix = (
        "Correct identity_cert.subject. For example, the country (C) must have exactly two letters: `subject = {{ CN "
        '= "device", C = "CH" }}`.'
    )
    detail: str


class CertificateNameError(PolicyError):
    """The certificate has another name."""

    code = "agent.certificate_name"
    cause = "{url} issued a certificate for '{got}' instead of '{wanted}'; DPS would not recognize this certificate."
    fix = (
        "The EST server derives the certificate name from the user or the bootstrap certificate. If this name is the "
        'device\'s name, set: `registration_id = "{got}"`.'
    )
    got: str
    url: str
    wanted: str


class NotAuthorityError(PolicyError):
    """The certificate is not a CA certificate."""

    code = "agent.not_a_ca"
    cause = "{url} returned a certificate for {id} that cannot be used as a CA: {detail}."
    fix = (
        "Under [cert_issuance.est.urls], set the EST label that issues CA certificates for this certificate ID. "
        'Alternatively, use a self-signed edge CA: `edge_ca = {{ method = "self_signed" }}`.'
    )
    detail: str
    id: str
    url: str


def _check_authority(managed: ManagedCertificate, got: EnrolledCertificate, url: str) -> None:
    """Verify that a CA certificate is a CA and chains to the server's anchors. Raise `NotAuthorityError`."""
    chain = got.chain
    if not got.leaf.is_ca:
        raise NotAuthorityError(id=managed.id, url=url, detail="it is not a CA certificate")
    for below, above in pairwise(chain):
        if not is_signed_by(below, above):
            raise NotAuthorityError(id=managed.id, url=url, detail=f"{above.subject_text} did not sign it")
    if not any(is_signed_by(chain[-1], anchor) for anchor in got.anchors):
        raise NotAuthorityError(id=managed.id, url=url, detail="it does not chain to a trust anchor of the server")


def subject_of(issued: IssuedIdentity) -> x509.Name:
    """Return the configured name, the common name last. Raise `SubjectInvalidError`."""
    try:
        others = [x509.NameAttribute(ATTRIBUTES[name], value) for name, value in issued.subject.items()]
        return x509.Name([*others, x509.NameAttribute(NameOID.COMMON_NAME, issued.common_name)])
    except ValueError as error:
        raise SubjectInvalidError(detail=printable(str(error))) from error


def request_for(managed: ManagedCertificate, key: HeldKey) -> bytes:
    """Return the certificate request, DER. Raise `SubjectInvalidError`."""
    signing_key = as_private_key(key.handle)
    request = x509.CertificateSigningRequestBuilder(subject_of(managed.issued))
    for extension, is_critical in EXTENSIONS[managed.kind]:
        request = request.add_extension(extension, critical=is_critical)
    return request.sign(signing_key, hash_for(signing_key)).public_bytes(Encoding.DER)


def est_trust(est: EstIssuance, system: ServerTrust) -> ServerTrust:
    """Return trust in exactly the configured files, otherwise the system's.

    Raise errors such as `CertificateMissingError`.
    """
    with _reading():
        return system if est.trusted is None else ServerTrust.of(est.trusted)


@contextmanager
def trusting_by(key: str) -> Iterator[None]:
    """Add the configuration key of the trust anchors to errors about a server's certificate."""
    try:
        yield
    except ServerUntrustedError as error:
        if type(error) is ServerUntrustedError:  # trust does not fix a name mismatch
            error.reason += f"; set the trusted CAs in {key} of the configuration"
        raise


@dataclass(frozen=True, slots=True)
class EstProof:
    """Credentials for an EST server; with an expired certificate, any failure leads to the next proof."""

    identity: Identity | None
    is_expired: bool = False


@dataclass(frozen=True, slots=True)
class IssuedChain:
    """Chain, leaf first, without the root; with the issuer's suggested renewal window, if provided."""

    chain: tuple[Certificate, ...]
    window: tuple[datetime, datetime] | None = None


Proofs = Callable[[ManagedCertificate, EstIssuance, HeldIdentity | None], AsyncIterator[EstProof]]


@dataclass(frozen=True, slots=True)
class CertificateSource:
    """Issues certificates; the caller chooses the order of the credentials (`proofs`)."""

    identities: IdentityStore
    make_links: MakeLinks
    system_trust: ServerTrust
    clock: Clock
    entropy: Entropy
    anchors: FollowedAnchors
    by_azure: "Callable[[IssuedIdentity, bytes, HeldIdentity | None], Awaitable[IssuedChain]]"

    async def issue(
        self, managed: ManagedCertificate, key: HeldKey, request: bytes, current: HeldIdentity | None, proofs: Proofs
    ) -> IssuedChain:
        """Issue a certificate for `key`; `current` authenticates a renewal."""
        match managed.issued.by:
            case EstIssuance() as est:
                return await self._by_est(managed, request, proofs(managed, est, current))
            case LocalIssuance() as local:
                return IssuedChain(self._locally(managed, local, key))
            case AzureIssuance():
                return await self.by_azure(managed.issued, request, current)
            case _:
                assert_never(managed.issued.by)

    async def ask(self, managed: ManagedCertificate, request: bytes, proof: EstProof) -> IssuedChain:
        """Request a certificate from the EST server with one proof.

        The certificate is tried without the password first: a one-time or revoked password would cause a refusal.
        """
        est = managed.issued.by
        assert isinstance(est, EstIssuance)  # noqa: S101 (only EST reaches this)
        if proof.identity is not None and est.auth.username is not None:
            try:
                return await self._asked(managed, request, proof, replace(est, auth=replace(est.auth, username=None)))
            except ServerUntrustedError:  # not a rejection
                raise
            except (UnauthenticatedError, ForbiddenError):
                if proof.is_expired:
                    raise
        return await self._asked(managed, request, proof, est)

    async def _asked(
        self, managed: ManagedCertificate, request: bytes, proof: EstProof, est: EstIssuance
    ) -> IssuedChain:
        trust, identity = est_trust(est, self.system_trust), proof.identity
        https = self.make_links(identity, trust).https()
        with trusting_by(TRUST_BUNDLE if est.trusted is None else "cert_issuance.est.trusted_certs"):
            got = await EstClient(est.url, https, est.auth.username, est.auth.password).enroll(request)
        for one in (trust, self.system_trust):
            self.anchors.learn(one, got.bag, self.clock.now())
        if managed.kind is CertificateUse.CA:
            _check_authority(managed, got, est.url)
        if managed.kind is CertificateUse.DEVICE and got.leaf.subject_cn != managed.issued.common_name:
            name = got.leaf.subject_cn or got.leaf.subject_text
            raise CertificateNameError(got=name, wanted=managed.issued.common_name, url=est.url)
        return IssuedChain(got.chain, got.window)

    async def _by_est(
        self, managed: ManagedCertificate, request: bytes, proofs: AsyncIterator[EstProof]
    ) -> IssuedChain:
        """Try one proof after another until one is accepted. Raise the last error."""
        refusal: BirthmarkError | None = None
        async with contextlib.aclosing(proofs) as each:  # type: ignore[type-var]  # async generators
            async for proof in each:
                try:
                    return await self.ask(managed, request, proof)
                except (EstServerBusyError, ServerUntrustedError):
                    raise
                except (UnauthenticatedError, ForbiddenError) as error:
                    refusal = error
                except BirthmarkError as error:
                    if not proof.is_expired:
                        raise
                    refusal = error
        assert refusal is not None  # noqa: S101 (at least one proof exists)
        raise refusal

    def _locally(self, managed: ManagedCertificate, local: LocalIssuance, key: HeldKey) -> tuple[Certificate, ...]:
        name, serial, now = subject_of(managed.issued), new_serial(self.entropy), self.clock.now()
        lifetime, profile = local.lifetime, managed.profile
        if local.is_self_signed:
            private_key = as_private_key(key.handle)
            return (self_signed(profile, name, private_key, serial=serial, now=now, lifetime=lifetime),)
        ca = self.local_ca(local)
        issuer = LeafIssuer(ca.leaf, as_private_key(ca.key.handle))
        public_key = key.handle.public_key
        made = issue(profile, name, public_key, issuer=issuer, serial=serial, now=now, lifetime=lifetime)
        return (made, *(one for one in ca.chain if not one.is_self_signed))

    def local_ca(self, local: LocalIssuance) -> HeldIdentity:
        """Return the CA on the device: configured, or issued to it."""
        if local.ca is not None:
            return self.identities.preloaded(PreloadedIdentity(*local.ca))
        slot = self.identities.slot(LOCAL_CA)
        if (held := slot.current()) is None:
            path = slot.places.certificate(LOCAL_CA)
            raise CertificateMissingError(path=path, reason="no local CA has been issued yet")
        return held


def cloud_trust(environment: Mapping[str, str], bundle: Path | None) -> ServerTrust:
    """Return trust for DPS and hub: the system's CAs (or SSL_CERT_FILE's) and those of trust_bundle_cert."""
    with _reading():
        trust = ServerTrust.default(environment)
        return trust if bundle is None else trust.plus([bundle])


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CertificateMissingError(path=error.filename, reason=reason_of(error)) from error


log = logging.getLogger(__name__)


@dataclass(slots=True)
class ByAzure:
    """Requests certificates from Azure for one agent."""

    entropy: Entropy
    connect: Callable[[HeldIdentity], Awaitable[HubClient]]
    """Connects to the known hub."""
    register: Callable[[bytes], Awaitable[HubAssignment]]
    """Registers the device with the bootstrap certificate and a CSR."""
    live: HubClient | None = field(default=None, init=False)
    """The current or last connection."""

    async def issue(self, issued: IssuedIdentity, request: bytes, current: HeldIdentity | None) -> IssuedChain:
        """Return the certificate for a CSR, without the root; `current` is an identity that the hub may accept."""
        chain: tuple[Certificate, ...] = ()
        if current is not None:
            try:
                chain = await self._by_hub(current, request)
            except ServerUntrustedError:  # not a rejection
                raise
            except (UnauthenticatedError, ForbiddenError, NotIssuedError) as error:
                log.info("certificate.not_by_hub", extra={"reason": str(error)})
        if not chain:
            chain = (await self.register(request)).chain
        _check(chain, request, issued)
        return IssuedChain(tuple(one for one in chain if not one.is_self_signed))

    async def _by_hub(self, current: HeldIdentity, request: bytes) -> tuple[Certificate, ...]:
        rid = self.entropy.token(8).hex()
        if self.live is not None:
            try:
                return await self.live.issue(request, rid)
            except LinkLostError:
                self.live = None
        hub = await self.connect(current)
        try:
            return await hub.issue(request, rid)
        finally:
            await hub.close()


def _check(chain: tuple[Certificate, ...], request: bytes, issued: IssuedIdentity) -> None:
    """Raise `AnswerInvalidError` unless the chain's leaf has the requested key and the configured name."""
    if not chain:
        raise AnswerInvalidError(detail="it registered the device but issued no certificate")
    if chain[0].spki_der != parse_csr(request).spki_der:
        raise AnswerInvalidError(detail="its certificate is for another key")
    if chain[0].subject_cn != issued.common_name:
        raise AnswerInvalidError(detail=f"its certificate is for {chain[0].subject_text}, not for {issued.common_name}")
