"""Composition of the account's services."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from birthmark.auth.access_token_cloud_credentials import NO_USERS, UserDirectory
from birthmark.auth.sigv4 import Signature, SignedRequest
from birthmark.awsiot.model import Account, CertificateId, is_certificate_id
from birthmark.awsiot.ports import Functions
from birthmark.awsiot.rules.policy import AwsPolicy
from birthmark.awsiot.rules.temporary_credentials import KEY_PREFIX
from birthmark.awsiot.service.access_keys import AccessKeys
from birthmark.awsiot.service.account_settings import AccountSettings
from birthmark.awsiot.service.authorizers import Authorizers
from birthmark.awsiot.service.ca_certificates import CertificateAuthorities
from birthmark.awsiot.service.certificate_succession import Predecessors, Renewals
from birthmark.awsiot.service.certificates import Certificates, RevocationCheck
from birthmark.awsiot.service.client_connections import Connections
from birthmark.awsiot.service.device_authorization import ConnectionGrant, Devices
from birthmark.awsiot.service.fleet_index import FleetIndex
from birthmark.awsiot.service.fleet_provisioning import Claims
from birthmark.awsiot.service.jit_registration import MAX_PER_CA, PER_SECOND, JitRegistration
from birthmark.awsiot.service.job_documents_and_s3_files import JobFiles
from birthmark.awsiot.service.job_executions import JobExecutions
from birthmark.awsiot.service.job_rollout import Rollout
from birthmark.awsiot.service.jobs import JobService
from birthmark.awsiot.service.lambda_functions import MappedFunctions
from birthmark.awsiot.service.local_data_streams import DataStreams
from birthmark.awsiot.service.operator_views_of_things_and_certificates import Overview
from birthmark.awsiot.service.policies import Policies
from birthmark.awsiot.service.provisioning_templates import ProvisioningTemplates
from birthmark.awsiot.service.registration_tasks import RegistrationTasks
from birthmark.awsiot.service.registry_events import RegistryEvents
from birthmark.awsiot.service.role_aliases import RoleAliases
from birthmark.awsiot.service.rule_actions import Ask, ExternalTargets, NoOutside, Republisher, sinks_of
from birthmark.awsiot.service.rule_destinations import Destinations
from birthmark.awsiot.service.s3_buckets import Buckets
from birthmark.awsiot.service.search_results import SearchResults
from birthmark.awsiot.service.shadows import ShadowService
from birthmark.awsiot.service.tags import TaggableResource, TagWriter
from birthmark.awsiot.service.thing_groups import ThingGroups
from birthmark.awsiot.service.thing_principals import Attachments
from birthmark.awsiot.service.thing_registration import ThingRegistration
from birthmark.awsiot.service.things import Things
from birthmark.awsiot.service.topic_rules import TopicRules, Whose
from birthmark.awsiot.store import (
    authorizers_and_role_aliases,
    jobs,
    policies,
    provisioning,
    registry,
    topic_rules_and_streams,
)
from birthmark.awsiot.store import certificates_and_access_keys as certificate_store
from birthmark.broker.database_stream import SqlStream
from birthmark.broker.message_fan_out import MessagePublisher
from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.errors import BirthmarkError
from birthmark.late_reference import Ref
from birthmark.message_routing.delivery_model import MessageServer, Sink
from birthmark.message_routing.failed_delivery_queue import Queue
from birthmark.message_routing.rule_time_shares import DeferredMessage
from birthmark.message_routing.write_ahead_log import LoggedMessage
from birthmark.pki.issuance import LeafIssuer
from birthmark.store import Database
from birthmark.supervised_tasks import Leads, always

RULES_SPACE, HELD_SPACE = "aws-rules", "aws-rules-held"


class AwsIot:
    """Services of the account on this database; requires a completed `load`.

    `issuer` returns the CA that signs for the service.
    """

    def __init__(
        self,
        account: Account,
        database: Database,
        clock: Clock,
        entropy: Entropy,
        issuer: Callable[[], LeafIssuer],
        *,
        revocations: RevocationCheck | None = None,
        functions: Functions | None = None,
        buckets: Path = Path("buckets"),
        roles: Mapping[str, AwsPolicy] | None = None,
        outside: ExternalTargets | None = None,
        servers: Mapping[str, MessageServer] | None = None,
        users: UserDirectory = NO_USERS,
        predecessors: Predecessors | None = None,
        per_ca: int = MAX_PER_CA,
        per_second: int = PER_SECOND,
        leads: Leads = always,
        record: Callable[[BirthmarkError], object] = lambda _: None,
        https_url: Callable[[], str] | None = None,
    ) -> None:
        self.account, self.database, self.clock = account, database, clock
        self.https_url = https_url or (lambda: f"https://{account.data_host}:8443")
        """HTTPS base URL of this server, for links."""
        self.functions: Functions = functions or MappedFunctions(clock, entropy)
        self.keys = AccessKeys(database, clock, entropy, users)
        self._messages: Ref[MessagePublisher] = Ref()
        self._ask: Ref[Ask] = Ref()
        self.settings = AccountSettings(database, clock)
        self.events = RegistryEvents(account, self.settings, clock, entropy, self._messages.get)
        self.index = FleetIndex(database, self.settings, clock)
        self.things = Things(database, clock, entropy, self.events, self.index)
        self.thing_groups = ThingGroups(self.things)
        self.certificates = Certificates(database, clock, entropy, issuer, revocations)
        self.authorities = CertificateAuthorities(database, clock, entropy, account.account_id)
        self.policies = Policies(database, clock, entropy)
        self.attachments = Attachments(database, self.things)
        self.templates = ProvisioningTemplates(database, clock, entropy)
        self.provisioning = ThingRegistration(
            database, self.certificates, self.things, self.thing_groups, self.policies
        )
        self.first_contact = JitRegistration(
            *(account, database, clock, self.certificates, self.provisioning, self.templates),
            audience=self._messages,
            per_ca=per_ca,
            per_second=per_second,
        )
        self.renewals = Renewals(database, clock, entropy, self.certificates, self.policies, predecessors)
        self.devices = Devices(
            *(account, database, clock, self.certificates, self.things, self.policies, revocations),
            first_contact=self.first_contact,
            renewals=self.renewals,
        )
        self.roles = RoleAliases(database, clock, entropy, self.devices, roles or {})
        self.authorizers = Authorizers(database, clock, entropy, self.functions)
        self.shadows = ShadowService(database, clock, self.index, self._messages)
        self.found = SearchResults(database, self.index)
        folders = Buckets(buckets)
        files = JobFiles(folders, self.roles.secret, clock, self.https_url)
        executions = JobExecutions(
            *(account, database, clock, entropy, files), announcer=self.events, audience=self._messages
        )
        self.jobs = JobService(executions, self.things, self.thing_groups)
        self.rollout = Rollout(database, clock, self.jobs, leads)
        self.streams = DataStreams(database, clock, leads)
        self._leads = leads
        self.rules = self._rules(entropy, outside or NoOutside(), buckets, servers or {}, record)
        self.tags = TagWriter(
            database,
            {
                "thinggroup": TaggableResource(self.thing_groups.get, registry.GROUP_IS_THERE),
                "thingtype": TaggableResource(self.things.types.get, registry.TYPE_IS_THERE),
                "policy": TaggableResource(self.policies.get, policies.POLICY_IS_THERE),
                "cacert": TaggableResource(self.authorities.get, certificate_store.CA_IS_THERE, "key_id"),
                "provisioningtemplate": TaggableResource(self.templates.get, provisioning.TEMPLATE_IS_THERE),
                "authorizer": TaggableResource(self.authorizers.get, authorizers_and_role_aliases.AUTHORIZER_IS_THERE),
                "job": TaggableResource(self.jobs.get, jobs.JOB_IS_THERE, "key_job_id"),
                "jobtemplate": TaggableResource(self.jobs.template, jobs.TEMPLATE_IS_THERE, "key_template_id"),
                "rolealias": TaggableResource(self.roles.get, authorizers_and_role_aliases.ALIAS_IS_THERE),
                "rule": TaggableResource(self.rules.get, topic_rules_and_streams.RULE_IS_THERE),
            },
        )
        self.connections = Connections(database)
        self.overview = Overview(database)
        self.tasks = RegistrationTasks(database, clock, entropy, account, self.provisioning, folders, leads)
        self.claims = Claims(
            *(database, clock, entropy, account, self.certificates, self.templates, self.provisioning),
            functions=self.functions,
        )

    def _rules(
        self,
        entropy: Entropy,
        outside: ExternalTargets,
        buckets: Path,
        servers: Mapping[str, MessageServer],
        record: Callable[[BirthmarkError], object],
    ) -> TopicRules:
        """Compose the rules, their queue, and their sinks."""
        database, clock = self.database, self.clock
        queue = Queue(database, clock, self._leads)
        destinations = Destinations(
            *(self.account, database, clock, entropy),
            check_url=outside.check,
            https_url=self.https_url,
            queue=queue,
            servers=servers,
            is_function=self.functions.is_mapped,
        )
        made = TopicRules(
            *(self.account, database, clock, entropy),
            shadows=self.shadows,
            destinations=destinations,
            queue=queue,
            record=record,
        )
        self.republisher = Republisher(self.account, made, self._messages, self._ask)
        self.sinks: Mapping[str, Sink] = sinks_of(
            republisher=self.republisher,
            destinations=destinations,
            outside=outside,
            functions=self.functions,
            buckets=Buckets(buckets),
            streams=self.streams,
            servers=servers,
            account=self.account,
            now=clock.micros,
        )
        return made

    def run(self, messages: MessagePublisher, ask: Ask, whose: Whose) -> None:
        """Start the services and rules; `whose` returns the principal of a connected client."""
        self._messages.fill(messages)
        self._ask.fill(ask)
        stream = SqlStream(RULES_SPACE, LoggedMessage, self.database, self.clock)
        held = SqlStream(HELD_SPACE, DeferredMessage[LoggedMessage], self.database, self.clock)
        self.rules.begin(stream, held, self.sinks, self._leads, whose)

    async def signer(
        self, request: SignedRequest, signature: Signature, services: Iterable[str], address: str
    ) -> ConnectionGrant:
        """Return the permissions of the access key that signed a request.

        Raise why signature or key is invalid.
        """
        if signature.access_key_id.startswith(KEY_PREFIX):
            return await self.roles.authenticate(request, signature, services, address)
        key = self.keys.authenticate(request, signature, services)
        return self.keys.grant_of(key, address, self.account.account_id)

    async def check_signer(self, grant: ConnectionGrant) -> None:
        """Raise if the key of a new connection was deleted in the meantime."""
        if grant.session is not None:
            await self.roles.check_stands(grant.session)
        else:
            self.keys.check_known(grant.principal)

    async def check_stands(self, principal: str, client_id: str) -> None:
        """Raise unless the certificate or access key of a client is still valid."""
        if is_certificate_id(principal):
            await self.devices.check_stands(CertificateId(principal), client_id)
        elif principal.startswith("authorizer/"):
            await self.authorizers.check_stands(principal.split("/")[1], client_id)
        elif principal.startswith("role/"):
            await self.roles.check_principal(principal, client_id)
        else:
            self.keys.check_known(principal)

    async def load(self) -> None:
        """Load the in-memory data."""
        await self.keys.load()
        await self.index.load()
        await self.rules.load()
