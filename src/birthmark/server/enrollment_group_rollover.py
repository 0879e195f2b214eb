"""Root rollover at the provisioning services of this server: enrollment groups must accept both CAs."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from birthmark.ca.hierarchy import Generation
from birthmark.ca.rules.root_rollover import GroupPlacesTakenError
from birthmark.dps.enrollment_document import CertificateEntry, CertificatePair, EnrollmentDocument, X509Attestation
from birthmark.dps.model import Instance
from birthmark.dps.rules.attestation import ca_name_for
from birthmark.dps.rules.enrollment_validation import certificates_of
from birthmark.dps.service import Authorities, Enrollments, Instances
from birthmark.pki.certificates import Certificate, is_signed_by
from birthmark.pki.registered_ca_certificate import CaCertificate
from birthmark.pki.revocation_urls import name_of_key
from birthmark.store import Changes

_PAGE = 250


@dataclass(frozen=True, slots=True)
class GroupsOfRoots:
    """Checks the enrollment groups and adds the new CA to them."""

    instances: Instances
    enrollments: Enrollments
    authorities: Authorities

    async def find_groups_missing_ca(self, old: Generation, new: Generation) -> Sequence[str]:
        """Return the groups that accept a CA of `old` and none of `new`."""
        return [group.id async for _, group, _ in self._without(old, new)]

    async def trust_changes(self, of: Generation, actor: str, *, is_trusted: bool) -> Changes:
        """Return the changes that revoke or restore trust in the CAs of a retired root; groups do not change."""
        changes = Changes()
        for instance in self.instances.all():
            scope, certificates = instance.id_scope, of.certificates
            changes.merge(await self.authorities.change_verification(scope, certificates, actor, is_trusted=is_trusted))
        return changes

    async def add_ca_to_groups(self, old: Generation, new: Generation, actor: str) -> Sequence[str]:
        """Set the new CA in a slot of those groups that is free or has an unverified CA; return their ids.

        Raise `GroupPlacesTakenError` for a group without such a slot, after all others are updated.
        """
        taught: list[str] = []
        full: GroupPlacesTakenError | None = None
        async for instance, group, known in self._without(old, new):
            successor, scope = _successor(known, old, new), instance.id_scope
            on_record = await self.authorities.all(scope)
            x509 = group.attestation.x509 or X509Attestation()
            ca = _get_ca_slots(group, {one.name: one.certificate for one in on_record})
            free = next((one for one in ("secondary", "primary") if _is_slot_replaceable(ca[one], on_record)), None)
            if free is None:
                other = next(one for one in ca.values() if one is not None and one != known)
                above = next((one for one in on_record if _is_or_signed(one, other)), None)
                full = GroupPlacesTakenError(group=group.id, ca=group.id if above is None else above.name)
                continue
            if x509.ca_references is not None:
                name = f"{_get_ca_base_name(x509.ca_references.names(), on_record, known)}-{name_of_key(successor)[:8]}"
                references = msgspec.structs.replace(x509.ca_references, **{free: name})
                both = msgspec.structs.replace(x509, ca_references=references)
            else:
                name = ca_name_for(group.id, f"-{name_of_key(successor)[:8]}")  # unregistered CAs grant no access
                entry = {free: CertificateEntry(certificate=successor.pem())}
                pair = msgspec.structs.replace(x509.signing_certificates or CertificatePair(), **entry)
                both = msgspec.structs.replace(x509, signing_certificates=pair)
            await self.authorities.add(scope, name, successor, is_verified=True, actor=actor)
            attestation = msgspec.structs.replace(group.attestation, x509=both)
            document = msgspec.structs.replace(group, attestation=attestation)
            await self.enrollments.put(instance, document, group.etag, actor=actor)
            taught.append(group.id)
        if full is not None:
            raise full
        return taught

    async def _without(
        self, old: Generation, new: Generation
    ) -> AsyncIterator[tuple[Instance, EnrollmentDocument, Certificate]]:
        of_old, of_new = set(old.certificates), set(new.certificates)
        for instance in self.instances.all():
            on_record = {one.name: one.certificate for one in await self.authorities.all(instance.id_scope)}
            after = ""
            while page := await self.enrollments.page(instance.id_scope, is_group=True, after=after, limit=_PAGE):
                after = page[-1].id
                for group in page:
                    known = [*certificates_of(group), *_referenced(group, on_record)]
                    if (first := next((one for one in known if one in of_old), None)) and not of_new & set(known):
                        yield instance, group, first


def _referenced(group: EnrollmentDocument, on_record: dict[str, Certificate]) -> list[Certificate]:
    x509 = group.attestation.x509
    names = x509.ca_references.names() if x509 is not None and x509.ca_references is not None else []
    return [on_record[name] for name in names if name in on_record]


def _get_ca_slots(group: EnrollmentDocument, on_record: Mapping[str, Certificate]) -> dict[str, Certificate | None]:
    """Return the CAs in the primary and secondary slots of a group."""
    x509 = group.attestation.x509
    if x509 is not None and x509.ca_references is not None:
        references = x509.ca_references
        return {place: on_record.get(getattr(references, place) or "") for place in ("primary", "secondary")}
    first, second = (*certificates_of(group), None, None)[:2]
    return {"primary": first, "secondary": second}


def _is_slot_replaceable(ca: Certificate | None, on_record: Sequence[CaCertificate]) -> bool:
    """Return whether a slot admits no device: it is empty, or its CA belongs to a retired root."""
    return ca is None or any(_is_or_signed(one, ca) for one in on_record if not one.is_verified)


def _is_or_signed(authority: CaCertificate, ca: Certificate) -> bool:
    return authority.certificate == ca or is_signed_by(ca, authority.certificate)


def _get_ca_base_name(names: Sequence[str], on_record: Sequence[CaCertificate], certificate: Certificate) -> str:
    """Return the name of a group's CA, without the suffix of an earlier rollover."""
    name = next(one.name for one in on_record if one.name in names and one.certificate == certificate)
    return name.removesuffix(f"-{name_of_key(certificate)[:8]}")


def _successor(certificate: Certificate, old: Generation, new: Generation) -> Certificate:
    """Return the successor of a CA: the CA with the same purpose, or the root."""
    purpose = next((name for name, one in old.issuers.items() if one.certificate == certificate), None)
    found = None if purpose is None else new.issuers.get(purpose)
    return new.anchor if found is None else found.certificate
