"""What an exchange of the root means for the provisioning services of this server: groups have to know both CAs."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import msgspec

from birthmark.ca.hierarchy import Generation
from birthmark.dps.document import CaReferences, CertificateEntry, EnrollmentDocument, X509Attestation
from birthmark.dps.model import Instance
from birthmark.dps.rules.attestation import ca_name_for
from birthmark.dps.rules.enrollment import certificates_of
from birthmark.dps.service import Authorities, Enrollments, Instances
from birthmark.pki.certificates import Certificate
from birthmark.pki.places import name_of_key

_PAGE = 250


@dataclass(frozen=True, slots=True)
class GroupsOfRoots:
    """Looks at the groups, and lets them know the CA that comes."""

    instances: Instances
    enrollments: Enrollments
    authorities: Authorities

    async def without(self, old: Generation, new: Generation) -> Sequence[str]:
        """Return the groups that know a CA of `old` and none of `new`."""
        return [group.id async for _, group, _ in self._without(old, new)]

    async def teach(self, old: Generation, new: Generation, actor: str) -> Sequence[str]:
        """Put the new CA into the second place of those groups; return which. One that is taken is left as it is."""
        taught = []
        async for instance, group, known in self._without(old, new):
            successor = _successor(known, old, new)
            x509 = group.attestation.x509 or X509Attestation()
            if x509.ca_references is not None:
                if x509.ca_references.secondary:
                    continue
                name = f"{x509.ca_references.primary}-{name_of_key(successor)[:8]}"
                await self.authorities.add(instance.id_scope, name, successor, is_verified=True, actor=actor)
                both = msgspec.structs.replace(x509, ca_references=CaReferences(x509.ca_references.primary, name))
            elif x509.signing_certificates is not None and x509.signing_certificates.secondary is None:
                name = ca_name_for(group.id, f"-{name_of_key(successor)[:8]}")  # none is let in by a CA off the record
                await self.authorities.add(instance.id_scope, name, successor, is_verified=True, actor=actor)
                pair = msgspec.structs.replace(
                    x509.signing_certificates, secondary=CertificateEntry(certificate=successor.pem())
                )
                both = msgspec.structs.replace(x509, signing_certificates=pair)
            else:
                continue
            attestation = msgspec.structs.replace(group.attestation, x509=both)
            document = msgspec.structs.replace(group, attestation=attestation)
            await self.enrollments.put(instance, document, group.etag, actor=actor)
            taught.append(group.id)
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


def _successor(known: Certificate, old: Generation, new: Generation) -> Certificate:
    """Return what takes the place of a CA: that of the same purpose, else the root."""
    purpose = next((name for name, one in old.issuers.items() if one.certificate == known), None)
    found = None if purpose is None else new.issuers.get(purpose)
    return new.anchor if found is None else found.certificate
