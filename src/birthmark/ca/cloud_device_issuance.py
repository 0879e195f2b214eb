"""Certificate issuance for cloud devices, ordered by a cloud service under an issuance policy of an operator.

A policy is a device profile of this CA. The ordering service has authenticated the device. This module checks that the
device owns the name, and revokes an unused earlier certificate with the next issuance.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography.x509.oid import ExtendedKeyUsageOID

from birthmark.auth.principals import Principal, PrincipalKind
from birthmark.ca.model import IssuedCertificate
from birthmark.ca.rules.issuance_eligibility import NameHeldError
from birthmark.ca.service import CertificateAuthority
from birthmark.errors import PolicyError, ThrottledError
from birthmark.pki.certificate_profiles import CertificateProfile, Purpose
from birthmark.pki.certificates import Certificate, Thumbprint
from birthmark.pki.csr import CertificateRequest
from birthmark.store import Changes

BURST, EVERY_S = 20, 10
"""Number of certificates that a registration may request in a burst, and the interval in seconds after that."""
_MOST = 8


class IssuingPolicyUnknownError(PolicyError):
    """The issuing policy does not exist."""

    code = "ca.issuing_policy_unknown"
    message = "The issuing policy '{policy}' does not exist; existing policies: {known}"
    cause = "The issuing policy '{policy}' does not exist; existing policies: {known}."
    fix = (
        'Use an existing policy: `birthmark device enroll --cert "$X509_CERT_FILE" --issue device --update`. To '
        "add a policy, add a [ca.profiles.NAME] table to the server's configuration."
    )
    known: str
    policy: str


class IssuingThrottledError(ThrottledError):
    """The device requested too many certificates."""

    code = "ca.issuing_throttled"
    cause = (
        "{device_id} received more than {burst} certificates in succession, at a rate of more than one certificate "
        "every {every_s} s."
    )
    fix = (
        "Wait {every_s} s, and check whether the device can store its certificate. To list the device's "
        "certificates: `birthmark pki ls {device_id}`"
    )
    burst: int
    device_id: str
    every_s: int


@dataclass(frozen=True, slots=True)
class CertificateOrder:
    """A certificate order of an authenticated device."""

    request: CertificateRequest
    policy: str
    maker: str
    """Registration that orders the certificate: `dps:{scope}/{registration id}`."""
    presented: Certificate | None = None
    """Certificate that the device presented."""
    known: Collection[Thumbprint] = ()
    """Certificates that identify the device; holding its name with one of them counts as the same device."""
    supersedes: Thumbprint | None = None
    """Earlier certificate that was never used."""


Also = Callable[[Sequence[Certificate]], Awaitable[Changes]]


@dataclass(frozen=True, slots=True)
class CertificateOrders:
    """Issues ordered certificates."""

    authority: CertificateAuthority = field(repr=False)
    most_alive: int | None = None
    """Maximum number of valid certificates per name."""
    has_room: Callable[[str, float], bool] = field(default=lambda _registration_actor, _now: True, repr=False)
    """Consumes a registration's rate limit at a monotonic time; returns False if it is exhausted.

    A limit is needed because each immediate replacement adds a CRL entry.
    """

    def check_policy(self, policy: str) -> None:
        """Raise `IssuingPolicyUnknownError` unless the policy may issue device certificates."""
        self._profile(policy)

    def _profile(self, policy: str) -> CertificateProfile:
        profiles = {name: one for name, one in self.authority.profiles.items() if _is_for_devices(one)}
        if policy not in profiles:
            raise IssuingPolicyUnknownError(policy=policy[:100], known=", ".join(sorted(profiles)))
        return profiles[policy]

    async def is_good(self, thumbprint: Thumbprint) -> bool:
        """Return whether a certificate was issued here, is not expired and not revoked."""
        found = await self.authority.find(thumbprint)
        return found is not None and not found.is_revoked and found.certificate.not_after > self.authority.clock.now()

    def usage_changes(self, certificate: Certificate, now: datetime) -> Changes:
        """Return the changes that record the first use of a certificate."""
        return self.authority.registration_changes(certificate, now)

    async def issue(self, order: CertificateOrder, also: Also) -> Sequence[Certificate]:
        """Return the new certificate and its chain, root last, after the commit.

        The changes that `also` returns for them are part of the same commit; `also` is called again after a conflicting
        write. Raise the errors of `CertificateAuthority.issue`.
        """
        profile, name = self._profile(order.policy), order.request.subject_cn
        shown = None if order.presented is None else order.presented.thumbprint
        mine = {one for one in (*order.known, shown) if one is not None}
        maker = Principal(PrincipalKind.DEVICE, order.maker, device_id=name)
        await self._check_is_its_own(order.request, maker, mine)
        if not self.has_room(order.maker, self.authority.clock.monotonic()):
            facts: dict[str, Any] = {"device_id": name or "", "burst": BURST, "every_s": EVERY_S}
            raise IssuingThrottledError(retry_after_s=EVERY_S, **facts)
        held = None if shown is None else await self.authority.find(shown)
        old = None if order.supersedes == shown else order.supersedes  # presented means used
        unused = None if old is None else await self.authority.find(old)
        by = Principal(PrincipalKind.DEVICE, order.maker, name, None if held is None else shown)

        async def with_those_above(leaf: Certificate) -> Changes:
            changes = await also((leaf, *self.authority.certificates_for(profile)))
            if unused is not None and not unused.is_revoked:
                changes.merge(self.authority.revocations.superseding_changes(unused, by))
            return changes

        return await self.authority.issue(
            order.request, by, profile, also=with_those_above, issued_certificate=held, most_alive=self.most_alive
        )

    async def _check_is_its_own(
        self, request: CertificateRequest, maker: Principal, mine: Collection[Thumbprint]
    ) -> None:
        """Raise `NameHeldError` if certificates of the name belong to another holder.

        That is an EST user or another enrollment.
        """
        name = request.subject_cn or ""
        now = self.authority.clock.now()
        for one in await self.authority.revocations.alive(name):
            if one.certificate.not_after > now and not await self._is_of(one, maker, mine):
                raise NameHeldError(actor=maker.actor, asked=name, device_id=name, holder=one.device_id)

    async def _is_of(self, issued: IssuedCertificate, maker: Principal, mine: Collection[Thumbprint]) -> bool:
        """Return whether a certificate was issued to the device itself, or requested with one that was."""
        for _ in range(_MOST):
            if issued.requested_by == maker.actor or issued.certificate.thumbprint in mine:
                return True
            if issued.parent is None or (above := await self.authority.find(issued.parent)) is None:
                return False
            issued = above
        return False


def _is_for_devices(profile: CertificateProfile) -> bool:
    is_client = ExtendedKeyUsageOID.CLIENT_AUTH in profile.extended_key_usage
    return is_client and not profile.is_ca and profile.purpose is Purpose.DEVICES and not profile.is_endless
