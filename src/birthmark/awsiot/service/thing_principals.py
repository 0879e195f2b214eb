"""Principals (certificates) attached to things."""

from typing import Any

from birthmark.awsiot.domain_events import GrantsChanged
from birthmark.awsiot.model import CertificateId, PrincipalType, ThingName
from birthmark.awsiot.rules.policy import are_of_one_device
from birthmark.awsiot.service.certificates import UnknownCertificateError
from birthmark.awsiot.service.things import Things
from birthmark.awsiot.store import certificates_and_access_keys as certificate_store
from birthmark.awsiot.store import registry as store
from birthmark.awsiot.store.policies import CERTIFICATE_IS_THERE
from birthmark.errors import InvalidRequestError
from birthmark.store import Changes, Database, retry_on_conflict
from birthmark.store.pagination import Page, page_of


class ExclusiveThingError(InvalidRequestError):
    """An exclusive attachment prevents this attachment."""

    code = "awsiot.exclusive_thing"
    message = "Cannot attach: {detail}"
    cause = "Certificate {certificate_id} cannot be attached to thing {thing}: {detail}."
    fix = (
        "Attach the certificate as NON_EXCLUSIVE_THING, or remove the conflicting attachment first: `aws iot "
        'detach-thing-principal --thing-name {other} --principal "$(aws iot describe-certificate --certificate-id '
        '{certificate_id} --query certificateDescription.certificateArn --output text)"`'
    )
    certificate_id: str
    detail: str
    other: str
    thing: str


class Attachments:
    """Attachments of certificates to things."""

    def __init__(self, database: Database, things: Things) -> None:
        self._database = database
        self._things = things

    async def attach(self, thing: str, certificate_id: str, kind: PrincipalType, *, actor: str) -> None:
        """Attach a certificate to a thing; the operation is idempotent.

        Raise `NotFoundError`, `ExclusiveThingError`.
        """
        await retry_on_conflict(lambda: self._attach(thing, certificate_id, kind, actor=actor))

    async def _attach(self, thing: str, certificate_id: str, kind: PrincipalType, *, actor: str) -> None:
        await self._things.get(thing)
        if await self._database.one(certificate_store.GET, id=certificate_id) is None:
            raise UnknownCertificateError(certificate_id=certificate_id)
        same = await self._database.one(store.ATTACHMENT, thing=thing, certificate_id=certificate_id)
        # Two rows suffice: a certificate with several things is attached exclusively to none.
        some = await self._database.all(store.THINGS_OF, certificate_id=certificate_id, after="", limit=2)
        others = [row for row in some if row["thing"] != thing]
        detail = None
        if same is not None and same["kind"] != kind.value:
            detail = f"it is attached as {same['kind']}"
        elif kind is PrincipalType.EXCLUSIVE and others:
            detail = "it is attached to another thing"
        elif any(row["kind"] == PrincipalType.EXCLUSIVE.value for row in others):
            detail = f"it belongs to {others[0]['thing']} exclusively"
        if detail is not None:
            raise ExclusiveThingError(
                certificate_id=certificate_id,
                thing=thing,
                other=thing if same is not None else others[0]["thing"],
                detail=detail,
            )
        rows = await self._database.all(store.GROUPS_AND_DOCUMENTS_OF, thing=thing)
        is_wide = not are_of_one_device(row["document"] for row in rows if row["document"] is not None)
        await self._database.commit(
            attachment_changes(thing, certificate_id, kind, is_new=same is None, is_wide=is_wide, actor=actor)
        )

    async def detach(self, thing: str, certificate_id: str, *, actor: str) -> None:
        """Detach a certificate from a thing; a certificate that is not attached is ignored.

        Raise `UnknownThingError`.
        """
        await self._things.get(thing)
        changes = Changes().run(store.DETACH, thing=thing, certificate_id=certificate_id)
        changes.audit(actor, "awsiot.thing_detach", thing, certificate_id=certificate_id)
        await self._database.commit(changes.event(GrantsChanged(certificate_id)))

    async def principals(self, thing: str, after: str, size: int) -> Page[tuple[CertificateId, PrincipalType]]:
        """Return the certificates attached to a thing. Raise `UnknownThingError`."""
        await self._things.get(thing)
        rows = await self._database.all(store.PRINCIPALS_OF, thing=thing, after=after, limit=size + 1)
        found = [(CertificateId(row["certificate_id"]), PrincipalType(row["kind"])) for row in rows]
        return page_of(found, size, [certificate_id for certificate_id, _ in found])

    async def things(self, certificate_id: str, after: str, size: int) -> Page[tuple[ThingName, PrincipalType]]:
        """Return the things of a certificate. Raise `UnknownCertificateError`."""
        if await self._database.one(certificate_store.GET, id=certificate_id) is None:
            raise UnknownCertificateError(certificate_id=certificate_id)
        rows = await self._database.all(store.THINGS_OF, certificate_id=certificate_id, after=after, limit=size + 1)
        found = [(ThingName(row["thing"]), PrincipalType(row["kind"])) for row in rows]
        return page_of(found, size, [name for name, _ in found])


def attachment_changes(
    thing: str, certificate_id: str, kind: PrincipalType, *, is_new: bool, is_wide: bool = False, actor: str
) -> Changes:
    """Return the changes that attach a certificate; they require both to exist and no conflicting attachment.

    `is_wide` means that the thing's groups grant more than access to the connecting device's own resources.
    """
    row: dict[str, Any] = {"thing": thing, "certificate_id": certificate_id, "kind": kind.value}
    changes = Changes().run(store.THING_IS_THERE, expect=1, key_name=thing)
    changes.run(CERTIFICATE_IS_THERE, expect=1, key_id=certificate_id)
    changes.run(store.MAY_BE_ATTACHED, expect=1, key_id=certificate_id, thing=thing, kind=kind.value)
    changes.run(store.ATTACH, expect=1 if is_new else 0, **row)
    told: dict[str, Any] = {"certificate_id": certificate_id} | ({"wide": True} if is_wide else {})
    changes.audit(actor, "awsiot.thing_attach", thing, **told)
    return changes.event(GrantsChanged(certificate_id))
