"""Registration authorities: certificates whose holders may request for other devices, each listed by an operator."""

from dataclasses import dataclass, field

from birthmark.clock_and_entropy import Clock
from birthmark.errors import InvalidRequestError, NotFoundError
from birthmark.est import store
from birthmark.est.model import RegistrationAuthority
from birthmark.pki.certificates import Certificate, Thumbprint
from birthmark.pki.extension_parser import CMC_RA
from birthmark.store import Changes, Database
from birthmark.store.pagination import every


class NotAnAuthorityError(InvalidRequestError):
    """The certificate is not a registration authority's."""

    code = "est.not_an_authority"
    cause = "The certificate '{subject}' has no registration authority purpose (extendedKeyUsage cmcRA)."
    fix = (
        "Issue a certificate with that purpose: `(umask 077; set -C; openssl genpkey -algorithm EC -pkeyopt "
        "ec_paramgen_curve:P-256 > new-ra.key && openssl req -x509 -key new-ra.key -subj /CN=ra-1 -addext "
        "extendedKeyUsage=clientAuth,1.3.6.1.5.5.7.3.28 -addext basicConstraints=critical,CA:FALSE -addext "
        "keyUsage=critical,digitalSignature > new-ra.pem)`."
    )
    subject: str


class AuthorityUnknownError(NotFoundError):
    """The registration authority does not exist."""

    code = "est.authority_unknown"
    cause = "No registration authority has the thumbprint {thumbprint}."
    fix = "List registration authorities: `birthmark pki ra ls`."
    thumbprint: str


@dataclass(frozen=True, slots=True)
class RegistrationAuthorities:
    """List of registration authorities; each change is audited."""

    database: Database = field(repr=False)
    clock: Clock = field(repr=False)

    async def add(self, certificate: Certificate, names: str, *, actor: str) -> RegistrationAuthority:
        """Add a registration authority; a repeated call updates `names`. Raise `NotAnAuthorityError`."""
        if CMC_RA not in (certificate.extensions.extended_key_usage or ()):
            raise NotAnAuthorityError(subject=certificate.subject_text)
        made = RegistrationAuthority(certificate, names, self.clock.now())
        row, thumbprint = store.AUTHORITY_RECORDS.row(made), certificate.thumbprint
        changes = Changes().run(store.ADD_AUTHORITY, thumbprint=thumbprint, **row)
        subject = certificate.subject_text
        await self.database.commit(
            changes.audit(actor, "est.authority.add", subject, thumbprint=thumbprint.hex(), names=names)
        )
        return made

    async def all(self) -> list[RegistrationAuthority]:
        """Return all registration authorities, in order of addition."""
        rows = await every(self.database, store.AUTHORITIES_PAGE, "thumbprint", after=b"")
        return sorted((store.AUTHORITY_RECORDS.of(row) for row in rows), key=lambda one: one.added_at)

    async def remove(self, thumbprint: Thumbprint, *, actor: str) -> None:
        """Remove a registration authority, by any of its certificates. Raise `AuthorityUnknownError`."""
        unknown = AuthorityUnknownError(thumbprint=thumbprint.hex())
        named = next((one for one in await self.all() if one.certificate.thumbprint == thumbprint), None)
        if named is None:
            raise unknown
        while same := [one.certificate for one in await self.all() if _is_same(one.certificate, named.certificate)]:
            changes = Changes()
            for one in same:
                changes.run(store.REMOVE_AUTHORITY, thumbprint=one.thumbprint)
                changes.audit(actor, "est.authority.remove", one.thumbprint.hex())
            await self.database.commit(changes)  # the next run finds one renewed in between


def _is_same(certificate: Certificate, other: Certificate) -> bool:
    """Return whether two certificates belong to one registration authority, such as after a renewal."""
    return (certificate.subject, certificate.issuer) == (other.subject, other.issuer)


def add_renewed_authority(authority: RegistrationAuthority, renewed: Certificate, clock: Clock, actor: str) -> Changes:
    """Return the changes that list a registration authority's renewed certificate, for the commit that issues it."""
    row = store.AUTHORITY_RECORDS.row(RegistrationAuthority(renewed, authority.names, clock.now()))
    facts = {"thumbprint": renewed.thumbprint.hex(), "names": authority.names}
    changes = Changes().run(store.ADD_AUTHORITY, thumbprint=renewed.thumbprint, **row)
    return changes.audit(actor, "est.authority.add", renewed.subject_text, **facts)
