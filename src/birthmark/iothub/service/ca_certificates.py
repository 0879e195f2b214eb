"""CA certificates of hubs (X.509 CA authentication): a device presents a certificate with its own name.

A CA certificate at a hub is independent of enrollment groups at a provisioning service: register it at each.
"""

import base64
import re
import shlex
from collections.abc import Awaitable, Callable, Sequence

from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.errors import ChangedMeanwhileError, ConflictError, InvalidRequestError, NotFoundError
from birthmark.iothub import store
from birthmark.iothub.domain_events import HubCaChanged
from birthmark.iothub.model import Hub, Identity
from birthmark.iothub.rules.authentication import CaNotTrustedError, CaUnverifiedError, DeviceCaNotTrustedError
from birthmark.iothub.service.hubs_and_authorization import UnknownHubError
from birthmark.net.fair_scheduler import Backlog
from birthmark.net.quota_key import share_of
from birthmark.pki.ca_possession_proof import which
from birthmark.pki.certificates import Certificate
from birthmark.pki.path_validation import MAX_BAG, SignatureCache, Signatures, build_chain, check_dates, decide_in_steps
from birthmark.pki.registered_ca_certificate import CaCertificate
from birthmark.pki.single_certificate_checks import ChainError
from birthmark.store import Changes, Database, retry_on_conflict
from birthmark.store.reloading_cache import RowCache

MAX_CAS = 25
"""Maximum CA certificates per hub ("IoT Hub quotas and throttling")."""
_MAX_NAME = 64
IsDevicesOwn = Callable[[Certificate], Awaitable[bool]]


class UnknownCaError(NotFoundError):
    """The hub has no such CA certificate."""

    code = "iothub.unknown_ca"
    message = "CA certificate {name} does not exist"
    cause = "Hub {hub} has no CA certificate named {name}."
    fix = (
        "List CA certificates: `birthmark hub ca ls --hub {hub}`. To add a CA certificate: `birthmark hub ca create "
        "NAME FILE --hub {hub}`."
    )
    hub: str
    name: str


class CaExistsError(ConflictError):
    """The name is in use, or the hub has the maximum number of CA certificates."""

    code = "iothub.ca_exists"
    message = "The name {name} is in use, or the hub has the maximum of {limit} CA certificates"
    cause = "Hub {hub} already has another CA certificate named {name}, or has the maximum of {limit} CA certificates."
    fix = (
        "Choose another name, or delete an unused CA certificate. To list the CA certificates: `birthmark hub ca ls "
        "--hub {hub}`"
    )
    hub: str
    limit: int = MAX_CAS
    name: str


class CaNotACaError(InvalidRequestError):
    """The certificate is not a CA certificate."""

    code = "iothub.ca_not_a_ca"
    cause = "The certificate '{subject}' is not a CA certificate: it has no basicConstraints CA:TRUE."
    fix = (
        "Register the CA certificate, not a device certificate. To create the device: `birthmark hub device create "
        '{device} --hub {hub} --cert "$X509_CERT_FILE"`'
    )
    device: str
    hub: str
    subject: str


class NoCaCodeError(ConflictError):
    """The CA has no verification code."""

    code = "iothub.ca_no_code"
    cause = "The CA certificate {name} has no verification code."
    fix = (
        'Generate a code and sign it: `birthmark ca verify-possession "$(birthmark hub ca code {name} --hub '
        '{hub})"{options} --dir ca --out proof.pem`'
    )
    hub: str
    name: str
    options: str = ""


class HubAuthorities:
    """CA certificates of all hubs."""

    def __init__(
        self, database: Database, clock: Clock, entropy: Entropy, is_devices_own: IsDevicesOwn | None = None
    ) -> None:
        self._database = database
        self._clock = clock
        self._entropy = entropy
        self._is_devices_own = is_devices_own
        self._remembered = RowCache(database, HubCaChanged)
        self._signatures = SignatureCache()

    async def all(self, hub: Hub) -> Sequence[CaCertificate]:
        """Return every CA certificate of a hub."""
        return [store.AUTHORITIES.of(row) for row in await self._database.all(store.LIST_AUTHORITIES, hub=hub.name)]

    async def get(self, hub: Hub, name: str) -> CaCertificate:
        """Return a CA certificate. Raise `UnknownCaError`."""
        row = await self._database.one(store.GET_AUTHORITY, hub=hub.name, name=name)
        if row is None:
            raise UnknownCaError(hub=hub.name, name=name[:_MAX_NAME])
        return store.AUTHORITIES.of(row)

    async def add(
        self,
        hub: Hub,
        name: str,
        certificate: Certificate,
        *,
        is_verified: bool,
        actor: str,
        etag: str | None = None,
    ) -> CaCertificate:
        """Add a CA certificate; idempotent for the same certificate. Raise `CaNotACaError`, `CaExistsError`.

        `etag` is that of the existing certificate: `NOTHING` where none may exist.
        """
        if not certificate.is_ca:
            device = shlex.quote(certificate.subject_cn or "pump-7")
            raise CaNotACaError(device=device, hub=hub.name, subject=certificate.subject_text)
        now = self._clock.now()
        check_dates(certificate, now)

        async def decide() -> CaCertificate:
            known = {one.name: one for one in await self.all(hub)}
            present = known.get(name)
            if present is not None:
                present.check_etag(etag)
            if present is None:
                if len(known) >= MAX_CAS:
                    raise CaExistsError(hub=hub.name, name=name)
                made = CaCertificate(name, certificate, is_verified, None, self._etag(), now, now)
            elif present.certificate != certificate:
                raise CaExistsError(hub=hub.name, name=name)
            elif present.is_verified or not is_verified:
                return present
            else:
                made = present.mark_verified(self._etag(), now)
            return await self._put(hub, made, present, actor, "iothub.ca_add", verified=is_verified)

        return await retry_on_conflict(decide)

    async def new_code(self, hub: Hub, name: str, *, actor: str, etag: str | None = None) -> CaCertificate:
        """Return a CA with a new verification code; the earlier one becomes invalid. Raise `AuthorityChangedError`."""
        code = self._entropy.token(24).hex().upper()

        async def decide() -> CaCertificate:
            present = await self.get(hub, name)
            present.check_etag(etag)
            made = present.with_code(code, self._etag(), self._clock.now())
            return await self._put(hub, made, present, actor, "iothub.ca_code")

        return await retry_on_conflict(decide)

    async def verify(
        self, hub: Hub, name: str, verification: Certificate, *, actor: str, etag: str | None = None
    ) -> CaCertificate:
        """Mark a CA as verified if a certificate contains the code. Raise `PossessionNotProvenError`."""

        async def decide() -> CaCertificate:
            present = await self.get(hub, name)
            present.check_etag(etag)
            if not present.verification_code:
                raise NoCaCodeError(hub=hub.name, name=name, options=which(present.certificate))
            made = present.proven(verification, present.verification_code, self._etag(), self._clock.now())
            return await self._put(hub, made, present, actor, "iothub.ca_verify")

        return await retry_on_conflict(decide)

    async def remove(self, hub: Hub, name: str, *, actor: str, etag: str | None = None) -> None:
        """Delete a CA certificate. Raise `UnknownCaError`, `AuthorityChangedError`."""

        async def decide() -> None:
            present = await self.get(hub, name)
            present.check_etag(etag)
            changed = ChangedMeanwhileError(what="The CA certificate")
            changes = Changes().run(
                store.DELETE_AUTHORITY_AS, expect=1, otherwise=changed, hub=hub.name, name=name, etag=present.etag
            )
            gone = HubCaChanged(hub.name, name, is_gone=True)
            changes.audit(actor, "iothub.ca_remove", name, hub=hub.name).event(gone)
            await self._database.commit(changes)

        await retry_on_conflict(decide)

    async def check(
        self, hub: Hub, identity: Identity, leaf: Certificate, bag: Sequence[Certificate], address: str
    ) -> None:
        """Verify that a verified CA of the hub issued a certificate.

        Raise `CaNotTrustedError`, `DevicesOwnCaError` or a `ChainError`.
        """
        bag, now = bag[:MAX_BAG], self._clock.now()
        anchors: list[Certificate] = []
        unverified = ""
        for name in dict.fromkeys(store.subject_digest(one.issuer_der) for one in (leaf, *bag)):
            asked = {"hub": hub.name, "subject_digest": name}
            found = await self._remembered.all(store.AUTHORITIES_NAMED, store.AUTHORITIES.of, **asked)
            anchors += [one.certificate for one in found if one.is_verified]
            unverified = unverified or next((one.name for one in found if not one.is_verified), "")
        told = {"device_id": identity.name, "hub": hub.name, "issuer": leaf.issuer_text}
        if not anchors:  # no needless signature check
            if unverified:
                detail = f"the registered CA, {unverified}, is not verified"
                raise CaUnverifiedError(detail=detail, name=unverified, **told)
            raise CaNotTrustedError(detail="no CA with that name is registered", name=_name_for(leaf), **told)

        def decide(signatures: Signatures) -> tuple[Certificate, ...]:
            return build_chain(leaf, bag, anchors, now, allow_partial=True, cache=signatures)

        try:
            chain = await Backlog.running().run_decision(decide_in_steps(decide, self._signatures), share_of(address))
        except ChainError as error:
            error.add_facts(device_id=identity.name, hub=hub.name)
            raise
        for ca in chain[1:-1]:
            if self._is_devices_own is not None and await self._is_devices_own(ca):
                raise DeviceCaNotTrustedError(device_id=identity.name, hub=hub.name, subject=ca.subject_text)

    async def _put(
        self, hub: Hub, ca: CaCertificate, present: CaCertificate | None, actor: str, action: str, **detail: object
    ) -> CaCertificate:
        row = store.authority_row(hub.name, ca)
        if present is None:
            gone = UnknownHubError(host=hub.host)
            changes = Changes().run(store.HUB_IS_THERE, expect=1, otherwise=gone, key_name=hub.name)
            changes.run(store.ADD_AUTHORITY, **row)
        else:
            key = {f"key_{name}": row.pop(name) for name in ("hub", "name")}
            changed = ChangedMeanwhileError(what="The CA certificate")
            changes = Changes().run(
                store.REPLACE_AUTHORITY, expect=1, otherwise=changed, **key, key_etag=present.etag, **row
            )
        thumbprint = ca.certificate.thumbprint.hex()
        changes.audit(actor, action, ca.name, hub=hub.name, thumbprint=thumbprint, **detail)
        await self._database.commit(changes.event(HubCaChanged(hub.name, ca.name)))
        return ca

    def _etag(self) -> str:
        return base64.b64encode(self._entropy.token(8)).decode()


def _name_for(leaf: Certificate) -> str:
    """Return the suggested name for a certificate's CA."""
    return re.sub(r"[^a-z0-9]+", "-", leaf.issuer_text.lower()).strip("-").removeprefix("cn-")[:40] or "ca"
