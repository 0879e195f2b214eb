"""Connection admission and reauthentication."""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import replace

import msgspec

from birthmark.auth.sigv4 import AccessKeyUnknownError
from birthmark.awsiot.domain_events import (
    AccessKeyRemoved,
    AuthorizerChanged,
    CertificateChanged,
    GrantsChanged,
    PolicyChanged,
    RoleAliasRemoved,
    SettingsChanged,
    ThingChanged,
    ThingGroupChanged,
)
from birthmark.awsiot.error_mapping import reason_of
from birthmark.awsiot.mqtt.connection import MAX_EXPIRY_S, WINDOW, AwsConnection
from birthmark.awsiot.mqtt.deadline_queue import LOOK_S, DeadlineQueue, TimedAction
from birthmark.awsiot.mqtt.reserved_topic_requests import ReservedTopics
from birthmark.awsiot.rules import mqtt_protocol_limits
from birthmark.awsiot.rules.custom_authorizers import NAME, AuthorizerRequest
from birthmark.awsiot.rules.policy_variables import ConnectionContext
from birthmark.awsiot.rules.reserved_topics import REASONS, SUBSCRIPTIONS, is_answer, presence, subscription
from birthmark.awsiot.rules.temporary_credentials import CredentialSession, SessionEndedError
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.authorizers import AuthorizerInactiveError
from birthmark.awsiot.service.device_authorization import CertificateInactiveError, ClaimClientIdError, ConnectionGrant
from birthmark.awsiot.service.lambda_functions import FunctionFailedError
from birthmark.broker import Arrival, Broker, ConnectedSession, SpaceRules
from birthmark.broker.errors import RetainedFullError, RetainedShareUsedError
from birthmark.broker.keyed_lock import KeyedLock
from birthmark.broker.model import BrokerMessage, Will, forwarded_properties
from birthmark.clock_and_entropy import Clock, Entropy, new_uuid
from birthmark.errors import BirthmarkError, UnavailableError
from birthmark.metric_catalog import Traffic
from birthmark.mqtt.packets import LEVEL_5, Connect
from birthmark.mqtt.packets import WillMessage as WillPacket
from birthmark.mqtt.properties import PropertyId, get_property
from birthmark.mqtt.sender_session import EACH_BYTES
from birthmark.net.identity_conflicts import TakeoverHistory
from birthmark.net.mqtt_driver import Accept, MqttDriver
from birthmark.net.mqtt_service_interface import Admission, CloseReason, MqttRefusedError
from birthmark.outbound.callouts import MOST_AT_ONCE
from birthmark.refusals import Ledger

_AGAIN_S = 1.0
ALPN = b"mqtt"
"""ALPN protocol with which clients select an authorizer."""
AccessChanged = ThingChanged | PolicyChanged | GrantsChanged | ThingGroupChanged
MIN_KEEP_ALIVE_S, MAX_KEEP_ALIVE_S = 30, 1200
PERSISTENT_S = 3600
RECEIVE_MAXIMUM, TOPIC_ALIAS_MAXIMUM, MAX_PACKET_BYTES = 100, 8, 149_504  # AWS values for MQTT 5


class AwsConnections:
    """The account's state of all its connections; client identities belong to the broker."""

    def __init__(
        self, aws: AwsIot, ledger: Ledger, clock: Clock, entropy: Entropy, *, broker: Broker, rules: SpaceRules
    ) -> None:
        self._aws = aws
        self._ledger = ledger
        self._clock = clock
        self._entropy = entropy
        self._changes = 0  # of anything a connection depends on
        self.looking: KeyedLock[AwsConnection] = KeyedLock()
        self.reserved = ReservedTopics(aws)
        self.traffic = Traffic()
        self.contested = TakeoverHistory(clock)
        self._due: DeadlineQueue[AwsConnection] = DeadlineQueue()
        self._turns = asyncio.Semaphore(MOST_AT_ONCE)  # same limit as for one function
        self.space = broker.space("aws", rules, self, tap=aws.rules)

    def principal_of(self, client: str) -> str:
        """Return the principal of a connected client; empty if it is not connected."""
        return "" if (attached := self.space.live.get(client)) is None else attached.principal

    async def accept(self, driver: MqttDriver, packet: Connect) -> Admission:
        """Admit a device by its certificate or by an authorizer, or raise `MqttRefusedError`."""
        return await self._accept(driver, packet, None)

    def acceptor(self, grant: ConnectionGrant) -> Accept:
        """Return the acceptor of connections whose WebSocket request was signed with a key of this grant."""

        async def accept(driver: MqttDriver, packet: Connect) -> Admission:
            return await self._accept(driver, packet, grant)

        return accept

    def acceptor_of(self, headers: Mapping[str, str], query: str) -> Accept:
        """Return the acceptor of connections with an unsigned WebSocket request."""

        async def accept(driver: MqttDriver, packet: Connect) -> Admission:
            return await self._accept(driver, packet, None, (headers, query))

        return accept

    async def admit(self, visitor: ConnectionContext) -> ConnectionGrant:
        """Return the current permissions of a connecting client."""
        return await self._aws.devices.admit(visitor)

    def check(self, grant: ConnectionGrant, action: str, kind: str, name: str, client_id: str) -> None:
        """Raise `PolicyDeniedError` unless the grant allows the action."""
        self._aws.devices.check(grant, action, kind, name, client_id)

    def may_receive(self, grant: ConnectionGrant, topic: str) -> bool:
        """Return whether a message may be delivered."""
        return self._aws.devices.may_receive(grant, topic)

    def record(self, connection: AwsConnection, error: BirthmarkError) -> None:
        """Record a refusal that does not end the connection."""
        self._ledger.record(error, address=connection.driver.address, presented=connection.driver.peer.leaf)

    async def _accept(
        self,
        driver: MqttDriver,
        packet: Connect,
        grant: ConnectionGrant | None,
        http: tuple[Mapping[str, str], str] | None = None,
    ) -> Admission:
        # The server assigns a client id in place of an empty one; a 3.1.1 client never learns it ([MQTT-3.1.3-6]).
        client_id = packet.client_id or f"$GEN/{new_uuid(self._entropy)}"
        expiry_s = _expiry_of(packet)
        attributes = ("PersistentConnect",) * (expiry_s > 0) + ("LastWill",) * (packet.will is not None)
        visitor = ConnectionContext(
            driver.peer.leaf, client_id, driver.address, driver.peer.sni, attributes, driver.peer.chain
        )
        seen = self._changes
        try:
            mqtt_protocol_limits.check_client_id(
                packet.client_id, is_kept=packet.level != LEVEL_5 and not packet.clean_start
            )
            if grant is None and (presented := presented_of(driver, packet, client_id, http)) is not None:
                grant = await self._aws.authorizers.authorize(presented, visitor)
            admitted = await self._admitted(visitor, grant)
            self._check_connect(admitted, packet, client_id)
            if admitted.is_claim:
                await self._check_claim(admitted, client_id)
            identifier = new_uuid(self._entropy)
            connection = AwsConnection(self, driver, visitor, admitted, client_id, identifier=identifier)
            maximum = get_property(packet.properties, PropertyId.RECEIVE_MAXIMUM)
            attached = await self.space.connect(
                Arrival(
                    client_id,
                    connection,
                    packet.clean_start,
                    expiry_s,
                    None if packet.will is None else self._will_of(packet.will, client_id, admitted),
                    min(WINDOW, maximum) if isinstance(maximum, int) else WINDOW,
                    tags_of(admitted, client_id),
                    admitted.principal,
                )
            )
            connection.attach(attached)
            try:
                if seen != self._changes:  # repeat decisions made before change events arrived
                    if grant is None:
                        await connection.reload_grant()
                    else:
                        await self._admitted(visitor, grant)
                    self._check_connect(connection.grant, packet, client_id)
            except BirthmarkError:
                self.space.disconnect(attached, CloseReason.REFUSED, with_will=False)
                raise
        except BirthmarkError as error:
            raise MqttRefusedError(reason_of(error), error, is_silent_in_3=True) from error
        self._expect(connection)
        asked = get_property(packet.properties, PropertyId.SESSION_EXPIRY) or 0
        return Admission(
            connection=connection,
            proved_by="" if grant is None else _prover(grant),
            session_present=attached.session_present,
            keep_alive_s=max(MIN_KEEP_ALIVE_S, min(packet.keep_alive_s or MAX_KEEP_ALIVE_S, MAX_KEEP_ALIVE_S)),
            assigned_client_id=None if packet.client_id else client_id,
            session_expiry_s=None if asked == expiry_s else expiry_s,
            receive_maximum=RECEIVE_MAXIMUM,
            topic_alias_maximum=TOPIC_ALIAS_MAXIMUM,
            maximum_packet_bytes=MAX_PACKET_BYTES,
            traffic=self.traffic,
            reason_of=reason_of,
        )

    async def _check_claim(self, claim: ConnectionGrant, client_id: str) -> None:
        """Raise `ClaimClientIdError` if another client's session would be taken over.

        An offline session belongs to a claim if it subscribed only to responses.
        """
        if (live := self.space.live.get(client_id)) is not None:
            if live.principal != claim.principal:
                raise ClaimClientIdError(thing=client_id, certificate_id=claim.principal)
        elif await self.space.record(client_id) is not None:
            await self._aws.devices.check_claims_name(claim, client_id)
            if not all(map(is_answer, await self.space.subscriptions.stored(client_id))):
                raise ClaimClientIdError(thing=client_id, certificate_id=claim.principal)

    async def _admitted(self, visitor: ConnectionContext, grant: ConnectionGrant | None) -> ConnectionGrant:
        if grant is None:
            return await self.admit(visitor)
        if grant.authorized is not None:
            await self._aws.authorizers.check_stands(grant.authorized.authorizer, visitor.client_id or "")
        else:
            await self._aws.check_signer(grant)  # the key may be gone after the upgrade's signing
        return grant

    # ---- scheduled work

    def _expect(self, connection: AwsConnection) -> None:
        """Schedule the deadlines of a new connection."""
        if (by := connection.grant.authorized) is not None:
            now = self._clock.monotonic()
            self._due.add(now + by.verdict.disconnect_s, TimedAction.END, connection)
            self._due.add(now + by.verdict.refresh_s, TimedAction.ASK, connection)
        elif (session := connection.grant.session) is not None:
            left_s = session.expires_at - self._clock.now().timestamp()
            self._due.add(self._clock.monotonic() + left_s, TimedAction.KEY_ENDS, connection)

    async def run_deadline_loop(self) -> None:
        """Process due deadlines every second; never returns."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.process_deadlines()

    def process_deadlines(self) -> None:
        """Disconnect expired clients and reauthorize those that are due."""
        for connection, deed in self._due.pop(self._clock.monotonic()):
            if deed is TimedAction.END:
                connection.driver.close(CloseReason.ENDED)
            elif deed is TimedAction.KEY_ENDS:
                _end_session(connection, "its validity period has ended")
            else:
                self.space.spawn(self._reauthorize(connection))

    async def _reauthorize(self, connection: AwsConnection) -> None:
        """Ask a client's authorizer again; without approval, disconnect the client."""
        async with self._turns:
            if connection.driver.is_over:
                return
            try:
                grant = await self._aws.authorizers.reauthorize(connection.grant)
                self.check(grant, "iot:Connect", "client", connection.client_id, connection.client_id)
            except BirthmarkError as error:
                if isinstance(error, UnavailableError) and not isinstance(error, FunctionFailedError):
                    self._due.add(self._clock.monotonic() + LOOK_S, TimedAction.ASK, connection)  # retry: outages end
                else:
                    connection.driver.refuse(error)
                return
            except Exception:
                connection.driver.close(CloseReason.SERVER)  # otherwise old grants persist
                raise
        connection.replace_grant(grant)
        assert grant.authorized is not None  # noqa: S101 - unchanged
        self._due.add(self._clock.monotonic() + grant.authorized.verdict.refresh_s, TimedAction.ASK, connection)

    def _check_connect(self, grant: ConnectionGrant, packet: Connect, client_id: str) -> None:
        self.check(grant, "iot:Connect", "client", client_id, client_id)
        if (will := packet.will) is not None:
            mqtt_protocol_limits.check_publish(client_id, will.topic, len(will.payload), will.qos, retain=will.retain)
            self.check(grant, "iot:Publish", "topic", will.topic, client_id)
            if will.retain:
                self.check(grant, "iot:RetainPublish", "topic", will.topic, client_id)

    def _will_of(self, will: WillPacket, client_id: str, grant: ConnectionGrant) -> Will:
        properties, _ = forwarded_properties(will.properties, 0)
        delay_s = get_property(will.properties, PropertyId.WILL_DELAY) or 0
        lasts_s = get_property(will.properties, PropertyId.MESSAGE_EXPIRY)
        whose = client_id, grant.principal  # client gone by then
        message = BrokerMessage(will.topic, will.payload, will.qos, will.retain, properties, None, *whose)
        return Will(message, int(str(delay_s)), lasts_s if isinstance(lasts_s, int) else None)

    @property
    def changes(self) -> int:
        """Number of changes that connections may depend on."""
        return self._changes

    def retag(self, connection: AwsConnection, grant: ConnectionGrant) -> None:
        """Register the dependencies of a connection with this grant."""
        self.space.tag(connection.attached, tags_of(grant, connection.client_id))

    # ---- account events

    def access_changed(self, changed: AccessChanged) -> None:
        """Invalidate dependent connections after a policy or attachment change; they reload at the next packet."""
        self._changes += 1
        for connection in self._tagged(_tag_of(changed)):
            connection.mark_stale()
            if isinstance(changed, GrantsChanged) and (session := connection.grant.session) is not None:
                self.space.spawn(self._check_key(connection, session))

    async def _check_key(self, connection: AwsConnection, session: CredentialSession) -> None:
        """End a connection if its temporary credentials are no longer valid."""
        try:
            await self._aws.roles.check_stands(session)
        except BirthmarkError as error:
            connection.driver.refuse(error)

    def certificate_changed(self, changed: CertificateChanged) -> None:
        """End the connections of a certificate that is no longer ACTIVE."""
        self._changes += 1
        if changed.status == "ACTIVE":
            return
        for connection in self._tagged(f"certificate:{changed.certificate_id}"):
            error = CertificateInactiveError(
                thing=connection.client_id, certificate_id=changed.certificate_id, status=changed.status
            )
            connection.driver.refuse(error)

    def settings_changed(self, _changed: SettingsChanged) -> None:
        """Reload account settings, which may include lifecycle events."""
        self.space.spawn(self._aws.index.refresh())

    def key_removed(self, removed: AccessKeyRemoved) -> None:
        """End the connections of a deleted access key."""
        self._changes += 1
        for connection in self._tagged(f"key:{removed.access_key_id}"):
            connection.driver.refuse(AccessKeyUnknownError(access_key_id=removed.access_key_id))

    def authorizer_changed(self, changed: AuthorizerChanged) -> None:
        """End the connections of an authorizer that is no longer ACTIVE."""
        self._changes += 1
        if changed.is_active:
            return
        for connection in self._tagged(f"authorizer:{changed.authorizer}"):
            error = AuthorizerInactiveError(authorizer=changed.authorizer, thing=connection.client_id)
            connection.driver.refuse(error)

    def role_alias_removed(self, removed: RoleAliasRemoved) -> None:
        """End the connections that use credentials of a deleted role alias."""
        self._changes += 1
        for connection in self._tagged(f"alias:{removed.alias}"):
            _end_session(connection, "its role alias was deleted")

    def live_connections(self) -> tuple[AwsConnection, ...]:
        """Return every connection."""
        return _connections(self.space.live.values())

    def recheck_connecting_clients(self) -> None:
        """Require reauthentication between CONNECT and CONNACK after a revocation."""
        self._changes += 1

    def _tagged(self, tag: str) -> tuple[AwsConnection, ...]:
        return _connections(self.space.tagged(tag))

    # ---- broker events

    def connected(self, attached: ConnectedSession) -> None:
        connection = attached.connection
        if isinstance(connection, AwsConnection):
            self._announce(connection, "connected", ipAddress=connection.driver.address)
            if connection.grant.replaces:
                self.space.spawn(self._aws.renewals.retire_predecessor(connection.grant.principal))
            self._note(attached.client, attached.since, None, connection)

    def disconnected(self, attached: ConnectedSession, reason: CloseReason) -> None:
        connection = attached.connection
        if isinstance(connection, AwsConnection) and connection.is_open:
            asked = reason in {CloseReason.DISCONNECT, CloseReason.DISCONNECT_WITH_WILL}
            self._announce(
                connection, "disconnected", clientInitiatedDisconnect=asked, disconnectReason=REASONS[reason]
            )
            self._note(attached.client, self.space.now(), REASONS[reason], connection)

    def _note(self, client: str, timestamp: int, reason: str | None, by: "AwsConnection | None" = None) -> None:
        """Index a thing's connect or disconnect; the latest event wins. Claim clients are excluded."""
        if self._aws.index.notes_presence and not (by is not None and by.grant.is_claim):
            self.space.spawn(self._aws.index.note_presence(client, at_ms=timestamp // 1000, reason=reason))

    def lost(self, client: str, epoch: int) -> None:
        event = presence(
            client,
            "disconnected",
            at_ms=self.space.now() // 1000,
            versionNumber=epoch,
            clientInitiatedDisconnect=False,
            disconnectReason="SERVER_ERROR",
        )
        self._publish(event)
        self._note(client, self.space.now(), "SERVER_ERROR")

    def will(self, client: str, will: Will, *, is_late: bool) -> Awaitable[None] | None:
        message = will.message
        if message.topic.startswith("$"):
            return None  # cloud services do not receive wills
        return self._publish_checked_will(client, will) if is_late and message.principal else self._now(will)

    async def _publish_checked_will(self, client: str, will: Will) -> None:
        """Publish a will unless its client's credentials were revoked; wait for an unavailable database."""
        principal = will.message.principal
        while True:
            try:
                await self._aws.check_stands(principal, client)
            except UnavailableError:
                await asyncio.sleep(_AGAIN_S)
            except BirthmarkError as error:
                self._ledger.record(error, whose=principal)
                return
            else:
                break
        if (waiting := self._now(will)) is not None:
            await waiting

    def _now(self, will: Will) -> Awaitable[None] | None:
        message, now = will.message, self.space.now()
        if will.expiry_s is not None:
            message = msgspec.structs.replace(message, expires_at=now + will.expiry_s * 1_000_000)
        waiting = self.space.messages.publish((message,), _ignore_result)
        return None if waiting is None else self._record_retain_refusal(waiting, message.principal)

    async def _record_retain_refusal(self, waiting: Awaitable[None], principal: str) -> None:
        """Record the refusal of a retained will, which has no client to receive it."""
        try:
            await waiting
        except (RetainedFullError, RetainedShareUsedError) as error:
            self._ledger.record(error, whose=principal)

    def overrun(self, client: str, limit: int) -> None:
        for_whom = self.space.live.get(client)
        error = mqtt_protocol_limits.SlowConsumerError(
            thing=client, limit=limit, size_kib=limit * EACH_BYTES // 1024, value=2 * limit
        )
        if for_whom is not None and isinstance(for_whom.connection, AwsConnection):
            for_whom.connection.note_once(error)
        else:
            self._ledger.record(error, whose=self.space.principal_of(client))

    def subscriptions_changed(self, connection: AwsConnection, what: str, topics: Sequence[str]) -> None:
        """Announce a client's subscribe or unsubscribe if the event may have subscribers."""
        client_id = connection.client_id
        if (
            "#" in client_id
            or "+" in client_id
            or not self.space.messages.may_have_subscribers(f"{SUBSCRIPTIONS}{what}/{client_id}")
        ):
            return
        event = subscription(
            client_id,
            what,
            topics,
            at_ms=self.space.now() // 1000,
            sessionIdentifier=connection.identifier,
            principalIdentifier=connection.grant.principal,
        )
        self._publish(event)

    def _announce(self, connection: AwsConnection, what: str, **more: object) -> None:
        event = presence(
            connection.client_id,
            what,
            at_ms=self.space.now() // 1000,
            sessionIdentifier=connection.identifier,
            principalIdentifier=connection.grant.identifier,
            versionNumber=connection.attached.since // 1000,
            **more,
        )
        self._publish(event)

    def _publish(self, message: BrokerMessage | None) -> None:
        if message is not None and (waiting := self.space.messages.publish((message,), _ignore_result)) is not None:
            self.space.spawn(waiting)


def tags_of(grant: ConnectionGrant, client_id: str) -> frozenset[str]:
    """Return the dependencies of a connection."""
    tags = {f"thing:{client_id}", *(f"policy:{name}" for name in grant.policies)}
    tags |= {f"group:{name}" for name in grant.groups}
    if grant.thing is not None:
        tags.add(f"thing:{grant.thing}")
    if grant.certificate_id is not None:
        tags.add(f"certificate:{grant.certificate_id}")
    elif grant.authorized is not None:
        tags.add(f"authorizer:{grant.authorized.authorizer}")
    elif grant.session is not None:
        tags |= {f"alias:{grant.session.alias}", f"certificate:{grant.session.certificate_id}"}
    else:
        tags.add(f"key:{grant.principal}")
    return frozenset(tags)


def presented_of(
    driver: MqttDriver, packet: Connect, thing: str, http: tuple[Mapping[str, str], str] | None
) -> AuthorizerRequest | None:
    """Return the credentials for an authorizer; None if the certificate applies."""
    headers, query = (None, "") if http is None else http
    presented = AuthorizerRequest(
        thing,
        driver.address,
        driver.peer.sni,
        packet.username,
        packet.password,
        packet.client_id or None,
        headers,
        query,
    )
    if driver.peer.alpn == ALPN:
        return presented
    if driver.peer.leaf is not None and presented.value(NAME) is None:
        return None
    says = packet.username or packet.password or presented.value(NAME)
    return presented if says else replace(presented, asks=False)


def _end_session(connection: AwsConnection, why: str) -> None:
    if (session := connection.grant.session) is not None:
        connection.driver.refuse(SessionEndedError(access_key_id=session.key_id, alias=session.alias, why=why))


def _prover(grant: ConnectionGrant) -> str:
    """Return the authentication method of a client without a certificate."""
    return grant.principal if grant.authorized is not None else f"key {grant.principal}"


def _tag_of(changed: AccessChanged) -> str:
    match changed:
        case GrantsChanged(certificate_id=name):
            return f"certificate:{name}"
        case PolicyChanged(policy=name):
            return f"policy:{name}"
        case ThingChanged(thing=name):
            return f"thing:{name}"
        case ThingGroupChanged(thing_group=name):
            return f"group:{name}"


def _expiry_of(packet: Connect) -> int:
    """Return the session expiry in seconds."""
    if packet.level != LEVEL_5:
        return 0 if packet.clean_start else PERSISTENT_S
    asked = get_property(packet.properties, PropertyId.SESSION_EXPIRY)
    return min(asked, MAX_EXPIRY_S) if isinstance(asked, int) else 0


def _connections(sessions: Iterable[ConnectedSession]) -> tuple[AwsConnection, ...]:
    return tuple([one.connection for one in sessions if isinstance(one.connection, AwsConnection)])


def _ignore_result(problem: BaseException | None) -> None:
    del problem
