"""Registry events: messages on `$aws/events/` topics about things, groups and types."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from birthmark.awsiot.model import Account
from birthmark.awsiot.ports import TopicPublisher
from birthmark.awsiot.rules.reserved_topics import EVENTS
from birthmark.awsiot.service.account_settings import AccountSetting, AccountSettings
from birthmark.broker.keyed_lock import until_done
from birthmark.broker.model import BrokerMessage
from birthmark.clock_and_entropy import Clock, Entropy, new_uuid

ANNOUNCED = (
    "THING",
    "THING_GROUP",
    "THING_GROUP_HIERARCHY",
    "THING_GROUP_MEMBERSHIP",
    "THING_TYPE",
    "THING_TYPE_ASSOCIATION",
    "JOB",
    "JOB_EXECUTION",
)
"""Event types that can be enabled."""


_SETTING = "events"


class RegistryEvents:
    """Publishes registry events as configured by the account."""

    def __init__(
        self,
        account: Account,
        settings: AccountSettings,
        clock: Clock,
        entropy: Entropy,
        audience: Callable[[], TopicPublisher | None],
    ) -> None:
        self._account = account
        self._settings = settings
        self._clock = clock
        self._entropy = entropy
        self._audience = audience

    async def configuration(self) -> AccountSetting:
        """Return the enabled event types by name."""
        return await self._settings.get(_SETTING)

    async def configure(self, wanted: Mapping[str, bool], *, actor: str) -> None:
        """Enable and disable event types; those not named stay unchanged."""
        await self._settings.change(_SETTING, lambda known: {**known, **wanted}, "awsiot.events_configure", actor=actor)

    async def tell(self, kind: str, topic: str, **told: Any) -> None:
        """Publish an event below `$aws/events/` if its type is enabled and it may have subscribers."""
        topic = EVENTS + topic
        audience = self._audience()
        if audience is None or not audience.may_have_subscribers(topic):
            return
        if not (await self.configuration()).value.get(kind):
            return
        event = {
            "eventId": new_uuid(self._entropy),
            "timestamp": self._clock.micros() // 1000,
            "accountId": self._account.account_id,
        }
        _, done = until_done()
        message = BrokerMessage(topic, json.dumps(told | event).encode(), 1)
        if (waiting := audience.publish([message], done)) is not None:
            await waiting
