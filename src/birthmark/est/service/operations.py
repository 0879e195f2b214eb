"""EST operations: authenticate the caller, then issue by the CA."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from birthmark.auth.password_digests import PasswordCheck, hash_generated
from birthmark.auth.principals import PrincipalKind
from birthmark.ca.model import IssuedCertificate, key_digest
from birthmark.ca.rules.issuance_eligibility import check_speaks_for, name_asked_for
from birthmark.ca.service import CertificateAuthority
from birthmark.clock_and_entropy import Clock, ClockStability, Entropy
from birthmark.errors import (
    BirthmarkError,
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    PolicyError,
)
from birthmark.est import store, wire
from birthmark.est.model import CallerProof, EstCaller, EstLabel, EstSettings, EstUser
from birthmark.est.rules.caller_rate_limit import CallerRateLimit, Limiter
from birthmark.est.rules.csr_attributes_and_template import request_for_key
from birthmark.est.rules.label_certificate_acceptance import is_unknown_at, late_renewal_at
from birthmark.est.rules.reenrollment_and_channel_binding_checks import check_channel_binding, check_same_identity
from birthmark.est.service.approvals import EnrollmentApprovals
from birthmark.est.service.authentication import Callers, PresentedBy, nowhere, require_unchanged_proof
from birthmark.est.service.registration_authorities import add_renewed_authority
from birthmark.pki.certificates import Certificate
from birthmark.pki.csr import CertificateRequest
from birthmark.pki.names_and_registration_ids import parse_registration_id
from birthmark.store import Changes, Database, to_micros

MAX_LIFETIME = timedelta(days=366)
_NAME_BYTES, _PASSWORD_BYTES = 6, 18
_KEPT = timedelta(days=30)
_FOR_A_DAY = timedelta(days=1)
"""Maximum lifetime of enrollment tokens that a narrowed access token creates."""


class TokenLifetimeError(InvalidRequestError):
    """The token lifetime is not valid."""

    code = "est.token_lifetime"
    cause = "The requested token lifetime is {seconds} s, but must be from 1 s to 366 days."
    fix = "Use a valid lifetime: `birthmark pki token create {device_id} --lifetime 24h`"
    device_id: str
    seconds: int


@dataclass(frozen=True, slots=True)
class TokenIssuer:
    """Issuer of enrollment tokens, which are users and are listed and revoked as such."""

    database: Database = field(repr=False)
    clock: Clock = field(repr=False)
    entropy: Entropy = field(repr=False)
    _steadiness: ClockStability = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_steadiness", ClockStability(self.clock))

    async def add(self, device_id: str, lifetime: timedelta, *, actor: str) -> tuple[EstUser, str]:
        """Create a token, and return it with its password. Raise `TokenLifetimeError`, `RegistrationIdInvalidError`."""
        parse_registration_id(device_id)
        if not timedelta(seconds=1) <= lifetime <= MAX_LIFETIME:
            raise TokenLifetimeError(seconds=int(lifetime.total_seconds()), device_id=device_id)
        now, password = self.clock.now(), self.entropy.token(_PASSWORD_BYTES).hex()
        name = f"token-{self.entropy.token(_NAME_BYTES).hex()}"
        user = EstUser(name, hash_generated(password), device_id, now, now + lifetime, is_one_time=True)
        changes = Changes()
        if self._steadiness.is_steady():
            changes.run(store.PURGE_TOKENS, before=to_micros(now - _KEPT))
        changes.run(store.ADD_USER, nonce=None, **store.USER_RECORDS.row(user))
        told: dict[str, object] = {"device_id": device_id, "expires_at": (now + lifetime).isoformat()}
        if lifetime > _FOR_A_DAY:
            told["lasting"] = True
        changes.audit(actor, "est.token.add", name, **told)
        await self.database.commit(changes)
        return user, password


_NAMED = 10
"""Maximum number of labels in a cause."""
_CA_LABEL = "edge-ca"
"""Suggested name of a label for CAs if none exists."""


class LabelUnknownError(NotFoundError):
    """The EST label does not exist."""

    code = "est.label_unknown"
    cause = "This server has no EST label '{label}'. Existing labels: {labels}."
    fix = "Use an existing label in the URL's path, or omit the label: `/.well-known/est/{operation}`."
    label: str
    labels: str
    operation: str = "?"


class CaElsewhereError(PolicyError):
    """This EST path issues no CA certificates."""

    code = "est.ca_elsewhere"
    cause = (
        "{actor} requested a CA certificate at a path that issues certificates of the profile '{profile}'. Labels "
        "that issue CA certificates: {labels}."
    )
    fix = (
        "Use a label that issues CA certificates in [cert_issuance.est.urls] of the device's configuration: "
        '`aziot-edged-ca = "{place}/{label}"`. To create such a label, add this line above the tables of the '
        'server\'s configuration: `est.labels.{label}.profile = "edge_ca"`. If a table `[est]` already exists, add '
        'this line to the table instead: `labels.{label}.profile = "edge_ca"`.'
    )
    actor: str
    device_id: str
    label: str
    labels: str
    place: str = f"https://HOST:8085{wire.BASE_PATH}"
    profile: str


class KeyGenerationOffError(ForbiddenError):
    """Server-side key generation is disabled."""

    code = "est.key_generation_off"
    cause = (
        "A client requested a server-generated key (serverkeygen), but server-side key generation is disabled. A "
        "device should generate its key in its secure element."
    )
    fix = (
        "Generate the key on the device. If the device cannot generate a key, add this line above the tables of the "
        "server's configuration: `est.serverkeygen = true`. Alternatively, add `serverkeygen = true` to an existing "
        "table of `[est]` or of the label."
    )


class TokenUsedError(ConflictError):
    """The token was already used."""

    code = "est.token_used"
    cause = "The token '{user}' was already used for another key of '{device_id}'."
    fix = (
        "If the device used the token and lost its key, create another token: `birthmark pki token create {device_id}`"
    )
    device_id: str
    user: str


@dataclass(slots=True)
class EstService:
    """EST server; `ca` issues, its database stores users and bootstrap CAs."""

    ca: CertificateAuthority
    passwords: PasswordCheck = field(repr=False)
    settings: EstSettings = field(default_factory=EstSettings)
    requests: Limiter = field(default_factory=lambda: Limiter(burst=20, every_s=1.0))
    """Requests per proof and device name: a first issue makes two requests, a renewal one."""
    note_fetched: Callable[[str], Awaitable[None]] | None = field(default=None, repr=False)
    """Called with each device that fetched the trust anchors."""
    presented_by: PresentedBy = field(default=nowhere, repr=False)
    pace: CallerRateLimit = field(init=False, repr=False)
    callers: Callers = field(init=False, repr=False)
    approvals: EnrollmentApprovals = field(init=False, repr=False)
    renewals: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.pace = CallerRateLimit(self.settings.renewals_per_s)
        self.callers = Callers(self.ca, self.passwords, self.settings, presented_by=self.presented_by)
        self.approvals = EnrollmentApprovals(self.ca.database, self.ca.clock, self.ca.is_revoked_since)

    def cacerts(self, label: str | None = None) -> tuple[Certificate, ...]:
        """Return exactly the CA certificates above a device's, because Azure's agent sends them all in TLS."""
        return self.ca.certificates_for(self._door(label).profile)

    async def record_anchor_fetch(self, caller: EstCaller) -> None:
        """Record that a device fetched the trust anchors, if the caller proves to be one; no proof is required.

        A password that was not verified before does not count as a guess here, because that would delay the caller and
        use up attempts.
        """
        if self.note_fetched is None:
            return
        with suppress(BirthmarkError):
            for proof in await self.callers.known(caller):
                if proof.principal.device_id is not None:
                    await self.note_fetched(proof.principal.device_id)

    def has_base64_lines(self, label: str | None = None) -> bool:
        """Return whether responses under a label are wrapped at 64 characters."""
        return self._door(label).base64_lines

    def csr_attributes(self, label: str | None = None) -> bytes | None:
        return self._door(label).csr_attributes

    async def enroll(self, body: bytes, caller: EstCaller, label: str | None = None) -> Certificate:
        """Issue a first or a further certificate (RFC 7030 section 4.2.1)."""
        door = self._door(label)
        async with self._add_unrenewed_certificate(body, caller, door):
            proofs = await self.callers.proofs(caller)
            return await self._issue(wire.parse_csr(body), proofs, caller, door)

    async def reenroll(self, body: bytes, caller: EstCaller, label: str | None = None) -> Certificate:
        """Renew the certificate shown in the handshake (RFC 7030 section 4.2.2)."""
        door, leaf = self._door(label), caller.peer.leaf
        async with self._add_unrenewed_certificate(body, caller, door, is_renewal=True):
            proof = None if leaf is None else await self.callers.by_certificate(caller, leaf)
            if proof is None:  # a password proves no certificate, but must still be valid
                await self.callers.proofs(caller)
            request = wire.parse_csr(body)
            check_same_identity(request, leaf)
            renewed = await self._issue(request, [] if proof is None else [proof], caller, door)
        self.renewals += 1
        return renewed

    @asynccontextmanager
    async def _add_unrenewed_certificate(
        self, body: bytes, caller: EstCaller, label: EstLabel, *, is_renewal: bool = False
    ) -> AsyncIterator[None]:
        """Add the fact `renews` to a refusal: the certificate that it leaves without a successor.

        It is a certificate issued here and presented in the handshake. The request is a simplereenroll or, for clients
        that use no other operation, one with the same name and profile.
        """
        try:
            yield
        except BirthmarkError as error:
            if (leaf := caller.peer.leaf) is not None:
                with suppress(BirthmarkError):
                    known = await self.ca.presented(leaf)
                    if known is not None and (is_renewal or _asks_for_the_same(body, known[0], label)):
                        error.add_facts(renews=leaf.thumbprint.hex())
            raise

    async def generate(self, body: bytes, caller: EstCaller, label: str | None = None) -> tuple[bytes, Certificate]:
        """Generate a key and issue its certificate (RFC 7030 section 4.4). Return PKCS#8 DER, not stored here."""
        door = self._door(label)
        if not door.key_generation:
            raise KeyGenerationOffError
        proofs = await self.callers.proofs(caller)
        key = ec.generate_private_key(ec.SECP256R1())
        asked = wire.parse_csr(body)
        check_channel_binding(asked, caller.peer)
        made = request_for_key(asked, key.public_key())
        certificate = await self._issue(made, proofs, caller, door, known_by=asked)
        return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()), certificate

    async def _issue(
        self,
        request: CertificateRequest,
        proofs: list[CallerProof],
        caller: EstCaller,
        label: EstLabel,
        *,
        known_by: CertificateRequest | None = None,
    ) -> Certificate:
        """Issue for `request`; `known_by` is the client's original CSR, whose key identifies its retries."""
        if request.wants_ca and not label.profile.is_ca:
            raise self._ca_elsewhere(proofs, label)
        proof = _proof_for(proofs, request.subject_cn, label)
        principal = proof.principal
        if principal.kind is not PrincipalKind.AUTHORITY:  # forwarded requests come from another connection
            check_channel_binding(request, caller.peer)
        # Each credential has its own quota: one for any name cannot use up the quota of the name's holder.
        name = f"{principal.actor} {name_asked_for(request, principal, label.profile)}"
        now = self.ca.clock.monotonic()
        self.requests.take(name, now)
        if principal.kind is PrincipalKind.BOOTSTRAP:
            self.requests.take(principal.actor, now)  # one quota in total for a credential with any name
        also = await self._check_approval(known_by or request, proof, caller, label)
        turn = name if principal.device_id is not None else principal.actor  # one at a time, regardless of the names
        self.pace.take(turn, now, self._ends_in_s(proof, caller))
        most = self.settings.max_live
        issued = await self.ca.issue(
            request, principal, label.profile, also=also, issued_certificate=proof.issued, most_alive=most
        )
        return issued[0]

    def renewal_window(self, issued: Certificate) -> tuple[datetime, datetime]:
        """Return the renewal window of a certificate; its device chooses a moment within it."""
        lifetime = issued.not_after - issued.not_before
        earliest, latest = self.settings.renewal_window
        return issued.not_before + lifetime * earliest, issued.not_before + lifetime * latest

    def _ends_in_s(self, proof: CallerProof, caller: EstCaller) -> float | None:
        """Return the remaining lifetime of the certificate that the caller presents to request the next one."""
        leaf, is_device = caller.peer.leaf, proof.principal.kind is PrincipalKind.DEVICE
        if leaf is None or not is_device or proof.late_renewal is not None:
            return None
        return (leaf.not_after - self.ca.clock.now()).total_seconds()

    async def _check_approval(
        self, request: CertificateRequest, proof: CallerProof, caller: EstCaller, label: EstLabel
    ) -> Callable[[Certificate], Changes]:
        """Return the changes for the commit; raise if a required approval is missing."""
        principal, changes = proof.principal, require_unchanged_proof(proof, caller.peer.leaf)
        late_renewal = late_renewal_at(label, proof, self.settings.late_renewal, self.ca.clock.now())
        is_asked = label.approval and is_unknown_at(label, proof) and not await self._was_approved_before(proof, label)
        if is_asked or (late_renewal is not None and late_renewal.approval):
            changes.merge(await self.approvals.check(request, principal, label.profile, caller.address))
        authority, leaf = proof.authority, caller.peer.leaf
        if late_renewal is not None and leaf is not None:
            expired = {"thumbprint": leaf.thumbprint.hex(), "not_after": leaf.not_after.isoformat()}
            changes.audit(principal.actor, "certificate.comeback", principal.name, **expired)
        if proof.user is not None and proof.user.is_one_time:
            changes.merge(_use_token(proof.user, request))

        def also(issued: Certificate) -> Changes:
            if authority is None or leaf is None or issued.subject != leaf.subject:
                return changes
            return add_renewed_authority(authority, issued, self.ca.clock, principal.actor).merge(changes)

        return also

    async def _was_approved_before(self, proof: CallerProof, label: EstLabel) -> bool:
        """Return whether an identity of this kind and name has a valid certificate of the label's profile.

        An EST identity requests device certificates repeatedly; an operator approves only once.
        """
        if proof.issued is None:
            return False
        alive = await self.ca.revocations.alive(proof.issued.device_id)
        parents = {one.parent for one in alive if one.profile == label.profile.name and one.parent is not None}
        found = [await self.ca.find(parent) for parent in parents]
        return any(one is not None and one.profile == proof.issued.profile for one in found)

    def _ca_elsewhere(self, proofs: list[CallerProof], label: EstLabel) -> CaElsewhereError:
        """Return the refusal of a CA at a label for other certificates; it names the labels for CAs."""
        principal = next((one.principal for one in proofs if one.principal.device_id), proofs[0].principal)
        labels = sorted(name for name, one in self.settings.labels.items() if one.profile.is_ca)[:_NAMED]
        return CaElsewhereError(
            actor=principal.actor,
            device_id=principal.device_id or "",
            label=labels[0] if labels else _CA_LABEL,
            labels=", ".join(labels) or "none",
            profile=label.profile.name,
        )

    def _door(self, label: str | None) -> EstLabel:
        if label is None:
            return self.settings.door
        if (door := self.settings.labels.get(label)) is None:
            raise LabelUnknownError(label=label, labels=", ".join(sorted(self.settings.labels)[:_NAMED]) or "none")
        return door


def _asks_for_the_same(body: bytes, certificate: IssuedCertificate, label: EstLabel) -> bool:
    return certificate.profile == label.profile.name and certificate.device_id == wire.parse_csr(body).subject_cn


def _use_token(user: EstUser, request: CertificateRequest) -> Changes:
    """Return the changes that use up a token for its first key, which may retry after a lost response."""
    used = TokenUsedError(user=user.name, device_id=user.device_id or "")
    digest = key_digest(request.spki_der)
    return Changes().run(store.USE_TOKEN, expect=1, otherwise=used, key_name=user.name, used_by=digest)


def _proof_for(proofs: list[CallerProof], asked: str | None, label: EstLabel) -> CallerProof:
    """Return the first proof that allows the name `asked`. Raise `NameNotAllowedError` if none does.

    The error is that of the first proof. A CA certificate belongs to its requester, whatever name the CSR has: IoT Edge
    names its CA after no device.
    """
    if label.profile.is_ca:
        return next((proof for proof in proofs if proof.principal.device_id is not None), proofs[0])
    chosen = next((proof for proof in proofs if proof.principal.may_act_for(asked)), proofs[0])
    check_speaks_for(chosen.principal, asked)
    return chosen
