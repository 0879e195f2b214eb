"""Everything of the one account, put together."""

from collections.abc import Callable
from dataclasses import dataclass

from birthmark.awsiot.model import Account
from birthmark.awsiot.service.access_keys import AccessKeys
from birthmark.awsiot.service.attachments import Attachments
from birthmark.awsiot.service.authorities import CertificateAuthorities
from birthmark.awsiot.service.certificates import Certificates, RevocationCheck
from birthmark.awsiot.service.devices import Devices
from birthmark.awsiot.service.overview import Overview
from birthmark.awsiot.service.policies import Policies
from birthmark.awsiot.service.things import Things
from birthmark.clock import Clock, Entropy
from birthmark.pki.issue import Issuer
from birthmark.store import Database


@dataclass(frozen=True, slots=True)
class AwsIot:
    """The services of the account. `load` must have run before anyone asks."""

    account: Account
    keys: AccessKeys
    things: Things
    certificates: Certificates
    authorities: CertificateAuthorities
    policies: Policies
    attachments: Attachments
    devices: Devices
    overview: Overview

    @classmethod
    def of(
        cls,
        account: Account,
        database: Database,
        clock: Clock,
        entropy: Entropy,
        issuer: Callable[[], Issuer],
        *,
        revocations: RevocationCheck | None = None,
    ) -> "AwsIot":
        """Return the account on this database; `issuer` is the CA that signs what the service issues."""
        things = Things(database, clock, entropy)
        policies = Policies(database, clock, entropy)
        certificates = Certificates(database, clock, entropy, issuer, revocations)
        return cls(
            account,
            AccessKeys(database, clock, entropy),
            things,
            certificates,
            CertificateAuthorities(database, clock, entropy, account.account_id),
            policies,
            Attachments(database, things),
            Devices(account, database, clock, certificates, things, policies, revocations),
            Overview(database),
        )

    async def load(self) -> None:
        """Read what is kept in memory."""
        await self.keys.load()
