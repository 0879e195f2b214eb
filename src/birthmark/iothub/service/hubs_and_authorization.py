"""Hubs of this server, and authorization of their service API."""

import base64
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace

from birthmark.auth.access_token_cloud_credentials import (
    NO_USERS,
    UserDirectory,
    is_user_policy,
    printable,
    token_and_service_of,
)
from birthmark.auth.permission_statements import Right
from birthmark.auth.sas import SasToken, check_resource, check_sas, parse_sas
from birthmark.auth.shared_access_policy_keys import Which, rotate_key
from birthmark.blob_storage import store as blob_store
from birthmark.broker.store import drop_space, drop_stream
from birthmark.broker.stream_retention import StreamRetention
from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.errors import BirthmarkError, ChangedMeanwhileError, ConflictError, NotFoundError
from birthmark.iam.missing_right_errors import require_right
from birthmark.iam.role_scope_ports import NOBODYS, ScopedRoles
from birthmark.iothub import configuration_store, job_store, store, twin_index_store
from birthmark.iothub.domain_events import HubDeleted, HubsChanged
from birthmark.iothub.model import Hub, TelemetryMessage, space_of
from birthmark.iothub.rules.authentication import PolicyKeyError
from birthmark.iothub.rules.tier_throttles_and_quotas import Edition, edition_of
from birthmark.net.fair_scheduler import count_for
from birthmark.store import Changes, Database, device_name_prefix_index, object_counters, retry_on_conflict
from birthmark.store.pagination import every
from birthmark.store.reloading_cache import ReloadingCache

POLICIES = ("iothubowner", "service", "device", "registryRead", "registryReadWrite")
READ = frozenset({"iothubowner", "registryRead", "registryReadWrite"})
WRITE = frozenset({"iothubowner", "registryReadWrite"})
SERVICE = frozenset({"iothubowner", "service"})


class UnknownHubError(NotFoundError):
    """No hub has this name or host name."""

    code = "iothub.unknown_hub"
    message = "Hub {host} does not exist"
    cause = "This server has no hub with the name or the host name {host}."
    fix = "List hubs: `birthmark hub ls`. To create this hub: `birthmark hub create {host} --host {host}`"
    host: str


class HubExistsError(ConflictError):
    """The name or the host name is in use."""

    code = "iothub.hub_exists"
    message = "Hub {hub} already exists"
    cause = "A hub with the name {hub} or the host name {host} already exists."
    fix = "Choose another name or host name. List hubs: `birthmark hub ls`."
    host: str
    hub: str


async def _no_changes(_hub: Hub) -> Changes:
    return Changes()


class Hubs:
    """All hubs of this server, kept in memory, as every connection needs them."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        entropy: Entropy,
        *,
        users: UserDirectory = NO_USERS,
        roles: ScopedRoles = NOBODYS,
        without_telemetry: Callable[[Hub], AbstractAsyncContextManager[None]] = lambda _hub: nullcontext(),
        with_routes: Callable[[Hub], Awaitable[Changes]] = _no_changes,
    ) -> None:
        """`users` may call the service API in addition to the hubs' own policies; `roles` end with their hubs.

        `without_telemetry`: while a hub is deleted, its telemetry is rejected, and accepted telemetry is written.
        `with_routes` returns the changes that delete all data of the hub's routes.
        """
        self._database = database
        self._clock = clock
        self._entropy = entropy
        self._by_host: dict[str, Hub] = {}
        self.editions: dict[str, Edition] = {}
        """Tier of each hub that has one, by name."""
        self._loading = ReloadingCache(database, self._read, HubsChanged, HubDeleted)
        self._users, self._roles = users, roles
        self.without_telemetry = without_telemetry
        self._with_routes = with_routes

    async def load(self) -> None:
        """Load the hubs into memory."""
        await self._loading.load()

    async def stop(self) -> None:
        """Stop the background reload."""
        await self._loading.stop()

    async def _read(self) -> None:
        found = [store.HUBS.of(row) for row in await every(self._database, store.HUBS_PAGE, "name")]
        self._by_host = {hub.host.lower(): hub for hub in found}
        self.editions = {hub.name: edition_of(hub.tier) for hub in found if hub.tier is not None}

    async def create(self, name: str, host: str, edition: Edition | None = None, *, actor: str) -> Hub:
        """Create a hub with new policy keys. Raise `HubExistsError`."""
        keys = {policy: (self._entropy.token(32), self._entropy.token(32)) for policy in POLICIES}
        hub = Hub(name, host, keys, None if edition is None else edition.text)
        exists = HubExistsError(hub=name, host=host)
        if any(known.name == name or known.host.lower() == host.lower() for known in self._by_host.values()):
            raise exists
        changes = Changes().run(store.ADD_HUB, **store.HUBS.row(hub)).audit(actor, "iothub.create", name, host=host)
        await self._commit(changes.event(HubsChanged(name)))
        return hub

    async def set_tier(self, name: str, edition: Edition | None, *, actor: str) -> Hub:
        """Set or remove the tier of a hub, effective at once. Raise `UnknownHubError`."""
        hub = self.by_name(name)
        made = replace(hub, tier=None if edition is None else edition.text)
        changes = Changes().run(
            store.CHANGE_TIER,
            expect=1,
            otherwise=UnknownHubError(host=name),
            tier=made.tier,
            key_name=name,
            key_host=hub.host,
        )
        changes.audit(actor, "iothub.tier", name, tier=made.tier or "none")
        await self._commit(changes.event(HubsChanged(name)))
        return made

    async def rotate(self, name: str, policy: str, which: Which, *, actor: str) -> Hub:
        """Replace a key of a policy. Raise `UnknownHubError` or `PolicyMissingError`."""

        async def decide() -> Hub:
            hub = self.by_name(name)
            fresh = self._entropy.token(32)
            made = replace(hub, policies=rotate_key(hub.policies, policy, which, fresh, f"The hub {name}"))
            changes = Changes().audit(actor, "iothub.key_rotate", name, policy=policy, which=which)
            changes.run(
                store.CHANGE_KEYS,
                expect=1,
                otherwise=ChangedMeanwhileError(what="The hub"),
                policies=store.HUBS.row(made)["policies"],
                key_name=name,
                key_policies=store.HUBS.row(hub)["policies"],
            )
            await self._commit(changes.event(HubsChanged(name)))
            return made

        return await retry_on_conflict(decide)

    async def audit_key_display(self, hub: Hub, policy: str, *, actor: str) -> None:
        """Audit the display of a policy's keys."""
        await self._database.commit(Changes().audit(actor, "iothub.key_show", hub.name, policy=policy))

    async def delete(self, name: str, *, actor: str) -> None:
        """Delete a hub with its devices and messages. Raise `UnknownHubError`.

        Only the hub present at the request is deleted, never a later one of the same name.
        """
        asked = self.by_name(name)
        async with self.without_telemetry(asked):  # messages in flight would reach the next hub of its name
            await retry_on_conflict(lambda: self._delete(asked, actor))

    async def _delete(self, asked: Hub, actor: str) -> None:
        self.check_is_there(asked)
        hub = self.by_name(asked.name)
        name, policies = hub.name, store.HUBS.row(hub)["policies"]
        changed = ChangedMeanwhileError(what="The hub")
        as_read = Changes().run(store.SAME_HUB, expect=1, otherwise=changed, key_name=name, key_policies=policies)
        await StreamRetention(space_of(name), TelemetryMessage, self._database, lambda one: one.device_id).nearly_all(
            as_read
        )
        changes = (
            Changes()
            .run(store.REMOVE_HUB, expect=1, otherwise=changed, name=name, policies=policies)
            .merge(drop_space(space_of(name)))
            .merge(drop_stream(space_of(name)))
            .merge(await self._with_routes(hub))
            .audit(actor, "iothub.delete", name, host=hub.host)
            .event(HubDeleted(name))
        )
        for statement in (*store.DELETE_HUB, *job_store.DELETE_HUB):
            changes.run(statement, hub=name)
        changes.run(configuration_store.REMOVE_CONFIGURATIONS_OF_HUB, hub=name)
        for statement in blob_store.DROP_ACCOUNT:
            changes.run(statement, account=name)
        changes.run(twin_index_store.DROP_PLACE, place=name)
        changes.run(device_name_prefix_index.FORGET_PLACE, place=store.place_of(name))
        changes.run(object_counters.FORGET_PLACE, name=store.DEVICES, place=name)
        await self._roles.remove_scope(f"hub/{name}", changes, self._commit, actor=actor)

    async def _commit(self, changes: Changes) -> None:
        await self._loading.committed(self._database.commit(changes))

    def all(self) -> Sequence[Hub]:
        """Return every hub, by name."""
        return sorted(self._by_host.values(), key=lambda hub: hub.name)

    def check_is_there(self, hub: Hub) -> None:
        """Raise `UnknownHubError` if the hub was deleted, even if another of its name exists."""
        now = self._by_host.get(hub.host.lower())
        if now is not hub and (now is None or not hub.is_rekeyed_as(now)):
            raise UnknownHubError(host=hub.host)

    def by_host(self, host: str) -> Hub:
        """Return the hub with this host name, with or without a port. Raise `UnknownHubError`."""
        if (hub := self.find(host)) is None:
            raise UnknownHubError(host=host)
        return hub

    def find(self, host: str) -> Hub | None:
        """Return the hub with this host name, with or without a port, or None."""
        low = host.lower()
        return self._by_host.get(low) or self._by_host.get(low.rpartition(":")[0].strip("[]"))

    def guard_exists(self, name: str, otherwise: BirthmarkError) -> Changes:
        """Return a write guard that requires the hub to exist; it raises `otherwise`."""
        if not any(hub.name == name for hub in self._by_host.values()):
            raise otherwise
        return Changes().run(store.HUB_IS_THERE, expect=1, otherwise=otherwise, key_name=name)

    def by_name(self, name: str) -> Hub:
        """Return the hub with this name. Raise `UnknownHubError`."""
        hub = next((hub for hub in self._by_host.values() if hub.name == name), None)
        if hub is None:
            raise UnknownHubError(host=name)
        return hub

    def authorize(
        self,
        hub: Hub,
        authorization: str | None,
        allowed: frozenset[str],
        resource: str,
        *,
        right: Right,
        address: str = "",
    ) -> str:
        """Authorize a service call and return the policy or user. Raise `UnauthenticatedError`, `RightMissingError`.

        Event Hubs clients sign with the key's text instead of its bytes.
        """
        names = ", ".join(sorted(allowed))
        if not authorization:
            raise PolicyKeyError(allowed=names, presented="no token")
        token = parse_sas(authorization)
        if is_user_policy(token.policy):
            return self._of_person(hub, token, resource, right, address)
        pair = hub.policies.get(token.policy or "")
        if pair is None or token.policy not in allowed:
            raise PolicyKeyError(allowed=names, presented=f"the policy {printable(token.policy)}")
        check_sas(token, _with_texts(pair), self._clock.now())
        check_resource(token, [f"{hub.host}/{resource}"])
        return str(token.policy)

    def _of_person(self, hub: Hub, token: SasToken, resource: str, right: Right, address: str) -> str:
        token_id, name = token_and_service_of(token.policy or "")
        user = self._users.find_user(token_id, address) if name == hub.name else None
        if user is None:
            raise PolicyKeyError(allowed="of the hub", presented=f"the policy {printable(token.policy)}")
        check_sas(token, _with_texts([user.key]), self._clock.now())
        count_for(f"user:{user.caller.user}")
        check_resource(token, [f"{hub.host}/{resource}"])
        require_right(user.caller, right, f"hub/{name}")
        return user.caller.actor


def _with_texts(keys: Sequence[bytes]) -> Sequence[bytes]:
    """Return keys, and the base64 text of each as another key."""
    return [*keys, *(base64.b64encode(key) for key in keys)]
