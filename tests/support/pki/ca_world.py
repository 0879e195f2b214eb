"""A certificate authority for tests: a hierarchy and a database in a directory, time and chance from fakes."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from birthmark.auth.principals import Principal, PrincipalKind
from birthmark.ca import ca_directory
from birthmark.ca.service import CertificateAuthority
from birthmark.pki.certificate_profiles import FOR_REQUESTS, CertificateProfile
from birthmark.store import open_database
from support.fakes import NOON, FakeClock, SeededEntropy

OPERATOR = Principal(PrincipalKind.OPERATOR, "test")
USER = Principal(PrincipalKind.EST_USER, "factory")


def of(name: str) -> Principal:
    """The holder of a credential that is bound to `name`."""
    return Principal(PrincipalKind.EST_USER, f"of-{name}", device_id=name)


@contextlib.asynccontextmanager
async def an_authority(
    directory: Path,
    url: str | None = None,
    profiles: Mapping[str, CertificateProfile] = FOR_REQUESTS,
    clock: FakeClock | None = None,
) -> AsyncIterator[CertificateAuthority]:
    clock, entropy = clock or FakeClock(), SeededEntropy()
    made = ca_directory.create(directory / "ca", "Test", now=NOON, entropy=entropy)
    database = await open_database(url or f"sqlite:///{directory}/x.db", clock)
    try:
        yield CertificateAuthority(made, database, clock, entropy, profiles=profiles)
    finally:
        await database.close()
