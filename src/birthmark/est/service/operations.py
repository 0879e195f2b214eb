"""EST at work: find out who asks, then have the CA issue."""

import asyncio
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from birthmark.auth.passwords import PasswordCheck
from birthmark.auth.principals import Principal, PrincipalKind
from birthmark.ca.rules.issuance import check_speaks_for
from birthmark.ca.service import CertificateAuthority
from birthmark.errors import BirthmarkError, NotFoundError, UnauthenticatedError
from birthmark.est import store, wire
from birthmark.est.model import Caller, EstSettings
from birthmark.est.rules.identity import identify
from birthmark.est.rules.limits import Limiter
from birthmark.est.rules.possession import check_channel_binding
from birthmark.est.rules.reenrollment import check_same_identity
from birthmark.net.share import share_of
from birthmark.pki.certificates import Certificate
from birthmark.pki.chains import SignatureCache
from birthmark.pki.csr import CertificateRequest
from birthmark.pki.profiles import Profile


class CredentialsMissingError(UnauthenticatedError):
    """Show a client certificate, or user and password."""

    code = "est.credentials_missing"
    cause = "The request carries neither user and password nor a client certificate."
    fix = (
        "Set username and password under [cert_issuance.est.auth]; this makes them: "
        "`birthmark est user add device-1 --device device-1`."
    )


class PasswordWrongError(UnauthenticatedError):
    """User or password is wrong."""

    code = "est.password_wrong"
    cause = "There is no EST user '{user}' with this password."
    fix = (
        "A device's own user and password are printed, and made at the first call: "
        "`birthmark env --format aziot --registration-id {user}`"
    )
    user: str


class LabelUnknownError(NotFoundError):
    """There is no such label."""

    code = "est.label_unknown"
    cause = "This server has no EST label '{label}'."
    fix = "Leave the label out of the URL's path: `/.well-known/est/{operation}`."
    label: str
    operation: str = "?"


@dataclass(slots=True)
class EstService:
    """One EST server; `ca` issues, its database holds users and bootstrap CAs."""

    ca: CertificateAuthority
    passwords: PasswordCheck = field(repr=False)
    settings: EstSettings = field(default_factory=EstSettings)
    requests: Limiter = field(default_factory=lambda: Limiter(burst=20, every_s=1.0))
    """Per proof and device name: a first issue makes two requests, a renewal one."""
    failures: Limiter = field(default_factory=lambda: Limiter(burst=10, every_s=6.0))
    """Wrong passwords per address, of IPv6 per /64."""
    signatures: SignatureCache = field(default_factory=SignatureCache, repr=False)
    renewals: int = field(default=0, init=False)
    _turns: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary, init=False, repr=False)

    def cacerts(self, label: str | None = None) -> tuple[Certificate, ...]:
        """Return what a device needs above its own certificate, and nothing more: Azure's agent sends it all in TLS."""
        return self.ca.certificates_for(self._profile(label))

    def csr_attributes(self, label: str | None = None) -> bytes | None:
        self._profile(label)
        return self.settings.csr_attributes

    async def enroll(self, body: bytes, caller: Caller, label: str | None = None) -> Certificate:
        """Issue a first or a further certificate (RFC 7030 section 4.2.1)."""
        profile = self._profile(label)
        principals = await self._principals(caller)
        request = wire.parse_csr(body)
        return await self._issue(request, principals, caller, profile)

    async def reenroll(self, body: bytes, caller: Caller, label: str | None = None) -> Certificate:
        """Renew the certificate shown in the handshake (RFC 7030 section 4.2.2)."""
        profile = self._profile(label)
        principal = None if caller.peer.leaf is None else await self._by_certificate(caller, caller.peer.leaf)
        if principal is None:  # a password proves nothing about the certificate to renew, but it must still be right
            await self._principals(caller)
        request = wire.parse_csr(body)
        check_same_identity(request, caller.peer.leaf)
        renewed = await self._issue(request, [] if principal is None else [principal], caller, profile)
        self.renewals += 1
        return renewed

    async def _issue(
        self, request: CertificateRequest, principals: list[Principal], caller: Caller, profile: Profile
    ) -> Certificate:
        check_channel_binding(request, caller.peer)
        principal = _principal_for(principals, request.subject_cn)
        # Each proof has its own share: who may ask for any name cannot use up what the name's holder needs.
        self.requests.take(f"{principal.actor} {request.subject_cn}", self.ca.clock.monotonic())
        return (await self.ca.issue(request, principal, profile))[0]

    async def _principals(self, caller: Caller) -> list[Principal]:
        """Return everyone the caller proves to be, at least one; raise why none.

        A wrong password is refused even beside a good certificate. A certificate that proves nothing is overlooked when
        the password is right: clients show whatever certificate they have.
        """
        by_password = None if caller.authorization is None else await self._by_password(caller, caller.authorization)
        if (leaf := caller.peer.leaf) is None:
            if by_password is None:
                raise CredentialsMissingError
            return [by_password]
        try:
            by_certificate = await self._by_certificate(caller, leaf)
        except BirthmarkError:
            if by_password is None:
                raise
            return [by_password]
        return [by_certificate] if by_password is None else [by_certificate, by_password]

    async def _by_certificate(self, caller: Caller, leaf: Certificate) -> Principal:
        rows = await self.ca.database.all(store.BOOTSTRAP_CAS)
        principal = identify(
            leaf,
            caller.peer.chain,
            issued=await self.ca.find(leaf.thumbprint),
            bootstrap_cas=[store.BOOTSTRAP_RECORDS.of(row) for row in rows],
            now=self.ca.clock.now(),
            expired_grace=self.settings.expired_grace,
            cache=self.signatures,
        )
        await self.ca.revocations.check(leaf, caller.peer.chain)
        return principal

    async def _by_password(self, caller: Caller, authorization: str) -> Principal:
        name, password = wire.parse_basic(authorization)
        address = f"address {share_of(caller.address)}"
        row = await self.ca.database.one(store.USER, name=name)
        user = None if row is None else store.USER_RECORDS.of(row)
        stored = None if user is None else user.password_hash
        # Devices share addresses: one that guesses may not lock out those that knew the right password before.
        if user is not None and self.passwords.remembers(password, stored):
            return Principal(PrincipalKind.EST_USER, user.name, user.device_id)
        # One guess of an address at a time: sent all at once they would all pass before the first is counted.
        turn = self._turns.setdefault(address, asyncio.Lock())
        async with turn:
            self.failures.check(address, self.ca.clock.monotonic())
            is_right = await self.passwords.matches(password, stored)
            if not is_right or user is None:
                self.failures.take(address, self.ca.clock.monotonic())
                raise PasswordWrongError(user=name)
        return Principal(PrincipalKind.EST_USER, user.name, user.device_id)

    def _profile(self, label: str | None) -> Profile:
        if label is None:
            return self.settings.profile
        if (profile := self.settings.labels.get(label)) is None:
            raise LabelUnknownError(label=label)
        return profile


def _principal_for(principals: list[Principal], asked: str | None) -> Principal:
    """Return the first who may speak for `asked`. Raise `NameNotAllowedError` for the first when nobody may."""
    chosen = next((principal for principal in principals if principal.speaks_for(asked)), principals[0])
    check_speaks_for(chosen, asked)
    return chosen
