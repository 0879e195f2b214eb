"""Registry events: what became of things, types and groups, for whoever subscribed below `$aws/events/`.

Which kinds are announced the account chooses. They are told after the commit, once, by the worker that made it.
"""

import json
from collections.abc import Mapping
from typing import Any

from birthmark.awsiot.model import Account
from birthmark.awsiot.ports import Audience
from birthmark.awsiot.rules.reserved import EVENTS
from birthmark.awsiot.service.settings import Setting, Settings
from birthmark.broker.model import Message
from birthmark.broker.waiting import until_done
from birthmark.clock import Clock, Entropy, new_uuid

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
"""The kinds that may be switched on."""
_SETTING = "events"


class RegistryEvents:
    """Tells subscribers, as the account has chosen."""

    def __init__(self, account: Account, settings: Settings, clock: Clock, entropy: Entropy) -> None:
        self._account = account
        self._settings = settings
        self._clock = clock
        self._entropy = entropy
        self.audience: Audience | None = None

    async def configuration(self) -> Setting:
        """Return which kinds are announced, by name."""
        return await self._settings.get(_SETTING)

    async def configure(self, wanted: Mapping[str, bool], *, actor: str) -> None:
        """Switch kinds on and off; those that are not named stay as they are."""
        await self._settings.change(_SETTING, lambda known: {**known, **wanted}, "awsiot.events_configure", actor=actor)

    async def tell(self, kind: str, topic: str, **told: Any) -> None:
        """Publish an event on a topic below `$aws/events/`, if its kind is announced and somebody may hear it."""
        topic = EVENTS + topic
        if self.audience is None or not self.audience.may_hear(topic):
            return
        if not (await self.configuration()).value.get(kind):
            return
        event = {
            "eventId": new_uuid(self._entropy),
            "timestamp": self._clock.micros() // 1000,
            "accountId": self._account.account_id,
        }
        _, done = until_done()
        message = Message(topic, json.dumps(told | event).encode(), 1)
        if (waiting := self.audience.publish([message], done)) is not None:
            await waiting
