"""Rule destinations: confirmed HTTP addresses, and configured servers.

An address is confirmed by a message with a token, whose link the receiver must call (developer guide, "Creating and
confirming HTTP topic rule destinations").
"""

import hmac
import json
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from birthmark.awsiot.domain_events import RuleChanged
from birthmark.awsiot.model import Account, DestinationStatus, RuleDestination
from birthmark.awsiot.rules.topic_rule_evaluation import Action, RulesFullError, is_same_origin
from birthmark.awsiot.service.lambda_functions import FunctionNotMappedError
from birthmark.awsiot.store import topic_rules_and_streams as store
from birthmark.awsiot.wire import topic_rules as wire
from birthmark.clock_and_entropy import Clock, Entropy, new_uuid
from birthmark.errors import (
    ChangedMeanwhileError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
)
from birthmark.message_routing.delivery_model import Delivery, MessageServer
from birthmark.message_routing.failed_delivery_queue import Queue
from birthmark.message_routing.sinks.errors import AddressInvalidError
from birthmark.store import Changes, Database
from birthmark.store.pagination import Page, page_of

KIND = "ruledestination"
_TOKEN_BYTES = 32
_TOKEN = re.compile(r"([0-9a-f]{32})[0-9a-f]{64}")
_LANE = "$destination"  # not a valid rule name
_MAX_REASON = 300
_HEADER = "x-amz-rules-engine-message-type"


class UnknownDestinationError(NotFoundError):
    """The topic rule destination does not exist."""

    code = "awsiot.unknown_rule_destination"
    message = "Topic rule destination {destination} not found"
    fix = "List destinations: `aws iot list-topic-rule-destinations`"
    destination: str


class DestinationExistsError(ConflictError):
    """A destination with this URL exists already."""

    code = "awsiot.rule_destination_exists"
    message = "A topic rule destination for {url} already exists"
    fix = "Use the existing destination, or delete it first. List destinations: `aws iot list-topic-rule-destinations`"
    url: str


class DestinationStatusError(InvalidRequestError):
    """The destination's status cannot be changed to this one."""

    code = "awsiot.rule_destination_status"
    message = "The destination {destination} is {status} and cannot be set to {wanted}"
    fix = (
        "You can set ENABLED only on a confirmed destination; IN_PROGRESS requests confirmation again. List "
        "destinations: `aws iot list-topic-rule-destinations`"
    )
    destination: str
    status: str
    wanted: str


class ServerNotMappedError(InvalidRequestError):
    """The configuration does not map this server."""

    code = "awsiot.rule_server_not_mapped"
    message = "{destination} is not mapped to a server"
    cause = "A rule sends messages to {destination}, which the server's configuration does not map to a server."
    fix = (
        'Add a [servers.NAME] table with url = "nats://HOST:4222" or "mqtts://HOST:8883" to the configuration, '
        "and restart the server. NAME is the part of the destination's ARN that follows ruledestination/vpc/. To "
        "show the current settings: `birthmark server settings`"
    )
    destination: str


@dataclass(slots=True)
class Destinations:
    """The destinations of the account."""

    account: Account
    database: Database
    clock: Clock
    entropy: Entropy
    check_url: Callable[[str], None]
    """Raises for URLs that may not be called."""
    https_url: Callable[[], str]
    """Base URL of links to this server."""
    queue: Queue
    servers: Mapping[str, MessageServer]
    is_function: Callable[[str], bool]
    _enabled: Sequence[RuleDestination] = ()

    async def read(self) -> None:
        """Reload the confirmed addresses."""
        found = [store.DESTINATIONS.of(row) for row in await self.database.all(store.ALL_DESTINATIONS)]
        self._enabled = [one for one in found if one.status is DestinationStatus.ENABLED]

    def check(self, action: Action) -> None:
        """Raise if this server can never perform an action."""
        match action.what:
            case wire.Kafka(destination_arn=arn):
                self.server_of(arn)
            case wire.Lambda(function_arn=arn):
                if not self.is_function(arn):
                    raise FunctionNotMappedError(arn=arn[:200])
            case wire.Http(url=url, confirmation_url=confirmed):
                self.check_url(confirmed or url)
            case _:
                pass

    def server_of(self, arn: str) -> str:
        """Return the name of a server by its ARN. Raise `ServerNotMappedError`."""
        name = arn.rpartition("/")[2]
        if name not in self.servers:
            raise ServerNotMappedError(destination=arn[:300])
        return name

    def allowed(self, url: str, confirmed: str) -> RuleDestination:
        """Return the enabled destination that permits a rule to send to a URL. Raise `AddressInvalidError`."""
        for one in self._enabled:
            if one.url == confirmed and is_same_origin(url, one.url):
                return one
        raise AddressInvalidError(receiver=url[:200], reason="no destination that confirmed it is enabled")

    # ---- user operations

    async def get(self, destination_id: str) -> RuleDestination:
        """Return a destination. Raise `UnknownDestinationError`."""
        if (row := await self.database.one(store.GET_DESTINATION, id=destination_id)) is None:
            raise UnknownDestinationError(destination=destination_id[:200])
        return store.DESTINATIONS.of(row)

    async def page(self, after: str, size: int) -> Page[RuleDestination]:
        """Return destinations, in order of their ids."""
        rows = await self.database.all(store.LIST_DESTINATIONS, after=after, limit=size + 1)
        found = [store.DESTINATIONS.of(row) for row in rows]
        return page_of(found, size, [one.id for one in found])

    async def create(self, url: str, *, actor: str) -> RuleDestination:
        """Create a destination and send the confirmation.

        Raise `DestinationExistsError`, or why it may not be called.
        """
        self.check_url(url)
        rows = await self.database.all(store.ALL_DESTINATIONS)
        if any(row["url"] == url for row in rows):
            raise DestinationExistsError(url=url[:200])
        if len(rows) >= store.MAX_DESTINATIONS:
            raise RulesFullError(count=store.MAX_DESTINATIONS, what="topic rule destinations")
        now, own = self.clock.now(), new_uuid(self.entropy)
        made = RuleDestination(f"http/{own}", url, DestinationStatus.IN_PROGRESS, "", self._token(own), now, now)
        changes = Changes().run(store.ADD_DESTINATION, **store.DESTINATIONS.row(made))
        self._ask(changes, made)
        await self.database.commit(changes.audit(actor, "awsiot.rule_destination_create", made.id))
        self.queue.wake()
        return made

    async def update(self, destination_id: str, status: str, *, actor: str) -> None:
        """Disable a destination, enable a confirmed one, or resend the confirmation.

        Raise `DestinationStatusError`.
        """
        known, now = await self.get(destination_id), self.clock.now()
        changes = Changes()
        match status:
            case "DISABLED":
                made = replace(known, status=DestinationStatus.DISABLED, modified_at=now)
            case "ENABLED" if not known.token:
                made = replace(known, status=DestinationStatus.ENABLED, reason="", modified_at=now)
            case "IN_PROGRESS":
                made = replace(
                    known,
                    status=DestinationStatus.IN_PROGRESS,
                    reason="",
                    token=self._token(known.id.rpartition("/")[2]),
                    modified_at=now,
                )
                self._ask(changes, made)
            case _:
                raise DestinationStatusError(destination=destination_id, status=known.status.value, wanted=status)
        changes.merge(self._changing(known, made))
        await self._commit(changes.audit(actor, "awsiot.rule_destination_update", known.id, status=status))
        self.queue.wake()

    async def delete(self, destination_id: str, *, actor: str) -> None:
        """Delete a destination. Raise `UnknownDestinationError`."""
        missing = UnknownDestinationError(destination=destination_id[:200])
        changes = Changes().run(store.REMOVE_DESTINATION, expect=1, otherwise=missing, id=destination_id)
        await self._commit(
            changes.event(RuleChanged(destination_id)).audit(actor, "awsiot.rule_destination_delete", destination_id)
        )

    async def confirm(self, token: str) -> None:
        """Confirm the destination of a token. Raise `UnknownDestinationError`."""
        row = None
        if (found := _TOKEN.fullmatch(token)) is not None:
            row = await self.database.one(store.GET_DESTINATION, id=f"http/{uuid.UUID(found[1])}")
        known = None if row is None else store.DESTINATIONS.of(row)
        is_asked = known is not None and known.token and known.status is not DestinationStatus.DISABLED
        if known is None or not is_asked or not hmac.compare_digest(known.token, token):
            raise UnknownDestinationError(destination="with that token")
        made = replace(known, status=DestinationStatus.ENABLED, reason="", token="", modified_at=self.clock.now())
        changes = self._changing(known, made)
        await self._commit(changes.audit("receiver", "awsiot.rule_destination_confirm", known.id))

    async def failed(self, name: str, reason: str) -> None:
        """Record that the confirmation could not be sent."""
        kind, _, destination_id = name.partition("/")
        if kind != _LANE:
            return
        try:
            known = await self.get(destination_id)
            if known.status is DestinationStatus.IN_PROGRESS:
                made = replace(
                    known,
                    status=DestinationStatus.ERROR,
                    reason=reason[:_MAX_REASON],
                    modified_at=self.clock.now(),
                )
                await self._commit(self._changing(known, made))
        except (ChangedMeanwhileError, UnknownDestinationError):
            return

    # ---- inside

    def _token(self, own: str) -> str:
        """Return a token that includes its destination, so that a guess costs at most one lookup."""
        return own.replace("-", "") + self.entropy.token(_TOKEN_BYTES).hex()

    def _changing(self, destination: RuleDestination, rule_destination: RuleDestination) -> Changes:
        row, was = store.DESTINATIONS.row(rule_destination), store.DESTINATIONS.row(destination)
        told: dict[str, Any] = {name: row[name] for name in ("status", "reason", "token", "modified_at")}
        seen = {f"key_{name}": was[name] for name in ("id", "status", "modified_at")}
        return Changes().run(store.CHANGE_DESTINATION, expect=1, **seen, **told).event(RuleChanged(destination.id))

    async def _commit(self, changes: Changes) -> None:
        await self.database.commit(changes)
        await self.read()

    def _ask(self, changes: Changes, destination: RuleDestination) -> None:
        arn = self.account.arn(KIND, destination.id)
        body = {
            "arn": arn,
            "confirmationToken": destination.token,
            "enableUrl": f"{self.https_url()}/confirmdestination/{destination.token}",
            "messageType": "DestinationConfirmation",
        }
        headers = {
            "content-type": "application/json",
            _HEADER: "DestinationConfirmation",
            "x-amz-rules-engine-destination-arn": arn,
        }
        address: dict[str, Any] = {"url": destination.url, "confirmed": "", "headers": headers}
        letter = Delivery(f"{_LANE}/{destination.id}/0", "http", address, json.dumps(body).encode(), {})
        self.queue.add(changes, f"{self.clock.micros():016x}-{new_uuid(self.entropy)}", letter)
