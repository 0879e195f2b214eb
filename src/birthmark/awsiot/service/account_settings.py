"""Account settings, such as the event configuration: cached in memory and invalidated on change."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from birthmark.awsiot.domain_events import SettingsChanged
from birthmark.awsiot.store import registry as store
from birthmark.clock_and_entropy import Clock
from birthmark.store import Changes, Database, retry_on_conflict
from birthmark.store.database import Row
from birthmark.store.reloading_cache import RowCache


@dataclass(frozen=True, slots=True)
class AccountSetting:
    """One setting; its `revision` counts changes from 0. Times are in microseconds, 0 if never set."""

    value: Mapping[str, Any]
    revision: int
    at: int
    made_at: int


class AccountSettings:
    """The settings of the account, by name."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._remembered: RowCache | None = None

    async def get(self, name: str) -> AccountSetting:
        """Return a setting; every possible setting exists."""
        if self._remembered is None:
            self._remembered = RowCache(self._database, SettingsChanged)
        (found,) = await self._remembered.all(store.GET, _setting_of, name=name)
        return found

    async def change(
        self,
        name: str,
        decide: Callable[[Mapping[str, Any]], Mapping[str, Any]],
        action: str,
        *,
        more: Changes | None = None,
        actor: str,
    ) -> AccountSetting:
        """Set the result of `decide` on the current value, together with `more` changes."""

        async def change() -> AccountSetting:
            row = await self._database.one(store.GET, name=name)
            assert row is not None  # noqa: S101 - from the schema
            known, now = _setting_of(row), self._clock.micros()
            made = AccountSetting(decide(known.value), known.revision + 1, now, known.made_at or now)
            changes = Changes().run(
                store.CHANGE,
                expect=1,
                key_name=name,
                key_revision=known.revision,
                value=json.dumps(made.value, sort_keys=True),
                revision=made.revision,
                at=made.at,
                made_at=made.made_at,
            )
            changes.merge(more or Changes()).audit(actor, action, name, **made.value)
            await self._database.commit(changes.event(SettingsChanged(name)))
            return made

        return await retry_on_conflict(change)


def _setting_of(row: Row) -> AccountSetting:
    return AccountSetting(json.loads(row["value"]), row["revision"], row["at"], row["made_at"])
