"""Authentication of EST callers by password or certificate.

Accepted certificates are from this CA or a manufacturer's, or belong to a registration authority.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from weakref import WeakValueDictionary

from birthmark.auth.password_check_scheduler import GUESS_S, MAX_WAITING, SHARE, PasswordAttempt, PasswordScheduler
from birthmark.auth.password_digests import PasswordCheck
from birthmark.auth.principals import Principal, PrincipalKind
from birthmark.ca.model import IssuedCertificate
from birthmark.ca.service import CertificateAuthority
from birthmark.errors import BirthmarkError, UnauthenticatedError
from birthmark.est import store, wire
from birthmark.est.model import BootstrapCa, CallerProof, EstCaller, EstSettings, EstUser, LateRenewalRule
from birthmark.est.rules.caller_rate_limit import EstThrottledError, Limiter
from birthmark.est.rules.client_certificate_identity import (
    ClientCertificateRevokedError,
    ClientCertificateUnknownError,
    identify_authority,
    identify_introduced,
    identify_issued,
)
from birthmark.est.rules.late_renewal import check_late_renewal
from birthmark.est.service.users_and_bootstrap_cas import accepted_cas
from birthmark.net.fair_scheduler import Backlog
from birthmark.net.quota_key import share_of
from birthmark.pki.certificates import Certificate, Thumbprint
from birthmark.pki.extension_parser import CMC_RA
from birthmark.pki.path_validation import SignatureCache, Signatures, decide_in_steps
from birthmark.store import Changes
from birthmark.untrusted_json_and_text import printable

PresentedBy = Callable[[str], Awaitable[Collection[Thumbprint]]]


class CredentialsMissingError(UnauthenticatedError):
    """Authentication required: client certificate, or user name and password."""

    code = "est.credentials_missing"
    cause = "The request contains neither a client certificate nor a user name and password."
    fix = (
        "Set username and password under [cert_issuance.est.auth]. To create a user name and password: `birthmark "
        "pki user create device-1 --device device-1`."
    )


class PasswordWrongError(UnauthenticatedError):
    """User name or password is wrong."""

    code = "est.password_wrong"
    cause = "No EST user '{user}' has this password."
    fix = (
        "If the device is yours, print its own user name and password, which the first call creates: `birthmark env "
        "--format aziot --registration-id {device_id}`. To keep an existing user name and password: `birthmark pki "
        "user create {user} --device NAME --password-file FILE`"
    )
    device_id: str
    """Device ID of the password: the user's device, or the user's name as a device ID."""
    user: str


class TokenEndedError(UnauthenticatedError):
    """User name or password is wrong."""  # no more than a wrong password

    code = "est.token_ended"
    cause = "The token '{user}' for '{device_id}' expired at {expires_at}."
    fix = "Create another token: `birthmark pki token create {device_id}`"
    device_id: str
    expires_at: str
    user: str


_GUESSES, _GUESS_EVERY_S = 10, 6.0


def _sent_away() -> BirthmarkError:
    who = "All clients with password authentication together"
    return EstThrottledError(retry_after_s=1, wait_s=1, who=who, burst=MAX_WAITING, every_s=GUESS_S)


async def nowhere(_name: str) -> Collection[Thumbprint]:
    return ()


@dataclass(slots=True)
class Callers:
    """Authenticates EST callers."""

    ca: CertificateAuthority
    passwords: PasswordCheck = field(repr=False)
    settings: EstSettings
    failures: Limiter = field(init=False)
    """Wrong passwords per user and address, per /64 for IPv6: guesses from one address do not block others."""
    noise: Limiter = field(default_factory=lambda: Limiter(burst=1000, every_s=1.0))
    """Wrong passwords per address: the address with the fewest is verified first."""
    guessed: Limiter = field(default_factory=lambda: Limiter(burst=1000, every_s=1.0))
    """Wrong passwords per existing user, from any address: a user without guesses is verified first."""
    late_renewals: Limiter = field(default_factory=lambda: Limiter(burst=20, every_s=1.0))
    """Lookups of the successor of an expired certificate, per name."""
    guesses: PasswordScheduler = field(init=False, repr=False)
    presented_by: PresentedBy = nowhere
    """Returns the certificates of a device's records in the clouds of this server."""
    _signatures: SignatureCache = field(default_factory=SignatureCache, repr=False)
    _turns: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary, init=False, repr=False)

    def __post_init__(self) -> None:
        workers = self.settings.workers
        self.failures = Limiter(burst=-(-_GUESSES // workers), every_s=_GUESS_EVERY_S * workers)
        self.guesses = PasswordScheduler(self.ca.clock, _sent_away, SHARE / workers)

    async def proofs(self, caller: EstCaller) -> list[CallerProof]:
        """Return all identities that the caller proves, at least one; raise the reason if none.

        A wrong password is rejected even with a valid certificate. A certificate that proves nothing is ignored if the
        password is correct, because clients present any certificate that they have.
        """
        by_password = None if caller.authorization is None else await self._by_password(caller, caller.authorization)
        if (leaf := caller.peer.leaf) is None:
            if by_password is None:
                raise CredentialsMissingError
            return [by_password]
        try:
            by_certificate = await self.by_certificate(caller, leaf)
        except BirthmarkError:
            if by_password is None:
                raise
            return [by_password]
        return [by_certificate] if by_password is None else [by_certificate, by_password]

    async def known(self, caller: EstCaller) -> list[CallerProof]:
        """Return identities that are cheap to prove: by a certificate issued here, or a password verified before.

        A certificate that proves nothing is ignored here, too. No manufacturer's chain is built for an unauthenticated
        client.
        """
        found: list[CallerProof] = []
        leaf = caller.peer.leaf
        if leaf is not None and await self.ca.presented(leaf) is not None:
            with suppress(BirthmarkError):
                found = [await self.by_certificate(caller, leaf)]
        if not found and caller.authorization is not None:
            name, password = wire.parse_basic(caller.authorization)
            user = await self._user(name)
            if user is not None and self.passwords.can_check_quickly(password, user.password_hash):
                found = [self._proof(user)]
        return found

    async def by_certificate(self, caller: EstCaller, leaf: Certificate) -> CallerProof:
        """Return the identity of a certificate, whose key the handshake proved."""
        database, now, bag = self.ca.database, self.ca.clock.now(), caller.peer.chain
        row = None
        if CMC_RA in (leaf.extensions.extended_key_usage or ()):
            row = await database.one(store.AUTHORITY, thumbprint=leaf.thumbprint)
        if row is not None:
            authority = store.AUTHORITY_RECORDS.of(row)
            found = CallerProof(identify_authority(leaf, authority, now), authority=authority)
        elif (known := await self.ca.presented(leaf)) is not None:
            issued, key_revoked_at = known
            found = CallerProof(identify_issued(issued), late_renewal=await self._late_renewal(issued), issued=issued)
            await self.ca.revocations.check_found(leaf, key_revoked_at, bag)
            return found
        else:
            makers = await accepted_cas(database)

            def introduced(signatures: Signatures) -> tuple[Principal, BootstrapCa]:
                return identify_introduced(leaf, bag, makers, now, signatures)

            steps = decide_in_steps(introduced, self._signatures)
            principal, bootstrap = await Backlog.running().run_decision(steps, share_of(caller.address))
            found = CallerProof(principal, bootstrap=bootstrap)
        await self.ca.revocations.check(leaf, bag)
        return found

    async def _late_renewal(self, issued: IssuedCertificate) -> LateRenewalRule | None:
        now, rules = self.ca.clock.now(), self.settings.late_renewal
        if now <= issued.certificate.not_after:
            return check_late_renewal(issued, rules, now)
        if (at := await self.ca.taken_back_since(issued)) is not None:  # a later revocation covers earlier ones
            raise ClientCertificateRevokedError(device_id=issued.device_id, revoked_at=at)
        rule = check_late_renewal(issued, rules, now)
        # The next checks are expensive, so an expired certificate gets no more attempts than a renewal, even if
        # rejected.
        self.late_renewals.take(f"the expired certificate of '{issued.device_id}'", self.ca.clock.monotonic())
        in_use = await self.presented_by(issued.device_id)
        newer, parents = await self.ca.newer(issued, in_use)
        check_late_renewal(issued, rules, now, newer=newer, parents=parents, in_use=in_use)
        return rule

    async def _by_password(self, caller: EstCaller, authorization: str) -> CallerProof:
        name, password = wire.parse_basic(authorization)
        address = f"address {share_of(caller.address)}"
        who = f"user '{printable(name)}' at {address}"
        user = await self._user(name)
        stored = None if user is None else user.password_hash
        # No delay for passwords created here or seen before, whatever others guess from any address.
        if user is not None and self.passwords.can_check_quickly(password, stored):
            return self._proof(user)
        # One guess at a time: concurrent guesses would all pass before the first is counted.
        turn = self._turns.setdefault(who, asyncio.Lock())
        async with turn:
            now = self.ca.clock.monotonic()
            self.failures.check(who, now)
            used = self.failures.used(who, now), self.noise.used(address, now)
            of_user = 0 if user is None else self.guessed.used(name, now)
            asked = PasswordAttempt(name, address, user is None, of_user, *used)
            is_right = await self.guesses.check(asked, partial(self.passwords.matches, password, stored))
            if not is_right or user is None:
                now = self.ca.clock.monotonic()
                self.failures.take(who, now)
                with suppress(EstThrottledError):
                    self.noise.take(address, now)
                with suppress(EstThrottledError):
                    if user is not None:
                        self.guessed.take(name, now)
                raise PasswordWrongError(user=name, device_id=(user and user.device_id) or name)
        again = await self._user(name)
        if again is None or again.password_hash != stored:
            raise PasswordWrongError(user=name, device_id=user.device_id or name)
        return self._proof(user)

    async def _user(self, name: str) -> EstUser | None:
        row = await self.ca.database.one(store.USER, name=name)
        return None if row is None else store.USER_RECORDS.of(row)

    def _proof(self, user: EstUser) -> CallerProof:
        if user.expires_at is not None and self.ca.clock.now() > user.expires_at:
            raise TokenEndedError(
                user=user.name, device_id=user.device_id or "", expires_at=user.expires_at.isoformat()
            )
        return CallerProof(Principal(PrincipalKind.EST_USER, user.name, user.device_id), user)


def require_unchanged_proof(proof: CallerProof, leaf: Certificate | None) -> Changes:
    """Return a write guard that requires the records of the proven identity to be unchanged.

    An external CA takes time to issue, and an operator may remove them in that time.
    """
    changes, user, authority, maker = Changes(), proof.user, proof.authority, proof.bootstrap
    if user is not None:
        gone: BirthmarkError = PasswordWrongError(user=user.name, device_id=user.device_id or user.name)
        known = {"key_name": user.name, "key_password_hash": user.password_hash}
        changes.run(store.USER_AS_READ, expect=1, otherwise=gone, **known)
    if leaf is None or (authority is None and maker is None):
        return changes
    gone = ClientCertificateUnknownError(subject=leaf.subject_text, issuer=leaf.issuer_text)
    if authority is not None:
        thumbprint, names = authority.certificate.thumbprint, authority.names
        changes.run(store.AUTHORITY_AS_READ, expect=1, otherwise=gone, key_thumbprint=thumbprint, key_names=names)
    if maker is not None:
        thumbprint, any_name = maker.certificate.thumbprint, int(maker.any_name)
        changes.run(
            store.BOOTSTRAP_CA_AS_READ, expect=1, otherwise=gone, key_thumbprint=thumbprint, key_any_name=any_name
        )
    return changes
