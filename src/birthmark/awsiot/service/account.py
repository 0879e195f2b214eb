"""Everything of the one account, put together."""

from collections.abc import Callable

from birthmark.awsiot.model import Account, CertificateId, is_certificate_id
from birthmark.awsiot.service.access_keys import AccessKeys
from birthmark.awsiot.service.announcing import RegistryEvents
from birthmark.awsiot.service.attachments import Attachments
from birthmark.awsiot.service.authorities import CertificateAuthorities
from birthmark.awsiot.service.certificates import Certificates, RevocationCheck
from birthmark.awsiot.service.connections import Connections
from birthmark.awsiot.service.devices import Devices
from birthmark.awsiot.service.found import Found
from birthmark.awsiot.service.index import Index
from birthmark.awsiot.service.overview import Overview
from birthmark.awsiot.service.policies import Policies
from birthmark.awsiot.service.settings import Settings
from birthmark.awsiot.service.shadows import Shadows
from birthmark.awsiot.service.tags import Carrier, TagWriter
from birthmark.awsiot.service.thing_groups import ThingGroups
from birthmark.awsiot.service.things import Things
from birthmark.awsiot.store import certificates, policies, registry
from birthmark.clock import Clock, Entropy
from birthmark.pki.issue import Issuer
from birthmark.store import Database


class AwsIot:
    """The services of the account on this database. `load` must have run before anyone asks.

    `issuer` returns the CA that signs what the service issues.
    """

    def __init__(
        self,
        account: Account,
        database: Database,
        clock: Clock,
        entropy: Entropy,
        issuer: Callable[[], Issuer],
        *,
        revocations: RevocationCheck | None = None,
    ) -> None:
        self.account = account
        self.keys = AccessKeys(database, clock, entropy)
        self.things = Things(database, clock, entropy)
        self.thing_groups = ThingGroups(database, clock, entropy, self.things)
        self.certificates = Certificates(database, clock, entropy, issuer, revocations)
        self.authorities = CertificateAuthorities(database, clock, entropy, account.account_id)
        self.policies = Policies(database, clock, entropy)
        self.attachments = Attachments(database, self.things)
        self.devices = Devices(account, database, clock, self.certificates, self.things, self.policies, revocations)
        self.shadows = Shadows(database, clock)
        self.settings = Settings(database, clock)
        self.events = RegistryEvents(account, self.settings, clock, entropy)
        self.index = Index(database, self.settings, clock)
        self.found = Found(database, self.index)
        self.shadows.index = self.index
        for service in (self.things, self.things.types, self.thing_groups):
            service.announcer, service.index = self.events, self.index
        self.tags = TagWriter(
            database,
            {
                "thinggroup": Carrier(self.thing_groups.get, registry.GROUP_IS_THERE),
                "thingtype": Carrier(self.things.types.get, registry.TYPE_IS_THERE),
                "policy": Carrier(self.policies.get, policies.POLICY_IS_THERE),
                "cacert": Carrier(self.authorities.get, certificates.CA_IS_THERE, "key_id"),
            },
        )
        self.connections = Connections(database)
        self.overview = Overview(database)

    async def check_stands(self, principal: str, client_id: str) -> None:
        """Raise unless the certificate, or access key, by which a client came may still be used."""
        if is_certificate_id(principal):
            await self.devices.check_stands(CertificateId(principal), client_id)
        else:
            self.keys.check_known(principal)

    async def load(self) -> None:
        """Read what is kept in memory."""
        await self.keys.load()
        await self.index.load()
