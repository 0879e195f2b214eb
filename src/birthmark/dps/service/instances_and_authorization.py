"""Provisioning services of this server, and authorization of their service API."""

from collections.abc import Sequence
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
from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.dps import store
from birthmark.dps.domain_events import InstancesChanged
from birthmark.dps.model import FIRST, IdScope, Instance
from birthmark.dps.rules.tiers import Paces, ThrottledOperation
from birthmark.errors import BirthmarkError, ChangedMeanwhileError, ConflictError, NotFoundError, UnauthenticatedError
from birthmark.iam.missing_right_errors import require_right
from birthmark.iam.role_scope_ports import NOBODYS, ScopedRoles
from birthmark.net.fair_scheduler import count_for
from birthmark.store import Changes, Database, device_name_prefix_index, retry_on_conflict
from birthmark.store.reloading_cache import ReloadingCache

OWNER = "provisioningserviceowner"
POLICIES = (OWNER,)


class UnknownScopeError(NotFoundError):
    """No provisioning service has this ID scope."""

    code = "dps.unknown_scope"
    message = "ID scope {scope} does not exist"
    cause = "No provisioning service on this server has the ID scope {scope}."
    fix = (
        'Use the ID scope of this server. To set PROVISIONING_IDSCOPE: `eval "$(birthmark env)"`. In the '
        'configuration of an agent, set `id_scope = "{known}"`'
    )
    known: str
    scope: str


class UnknownInstanceError(NotFoundError):
    """No provisioning service has this name."""

    code = "dps.unknown_instance"
    message = "Provisioning service {name} does not exist"
    cause = "This server has no provisioning service {name}."
    fix = (
        "Create the provisioning service: `birthmark dps create {name}`. List provisioning services: `birthmark dps ls`"
    )
    name: str


class InstanceExistsError(ConflictError):
    """A provisioning service has this name already."""

    code = "dps.instance_exists"
    message = "Provisioning service {name} already exists"
    cause = "A provisioning service named {name} already exists."
    fix = "Choose another name. List provisioning services: `birthmark dps ls`."
    name: str


class FirstInstanceError(ConflictError):
    """The default provisioning service cannot be deleted."""

    code = "dps.first_instance"
    cause = "{name} is the provisioning service that the server creates at startup and that `birthmark env` exports."
    fix = (
        "Keep this provisioning service. To run the server without DPS, omit DPS from the services in server.toml. "
        "List provisioning services: `birthmark dps ls`"
    )
    name: str


class ServiceTokenError(UnauthenticatedError):
    """The token is not valid for this service."""

    code = "dps.service_token_refused"
    cause = "No provisioning service on this server accepts the call, which presented {presented}."
    fix = 'Use the connection string of this server. To set PROVISIONING_CONNECTION_STRING: `eval "$(birthmark env)"`'
    presented: str


class Instances:
    """All provisioning services of this server. They are few, so they are cached in memory.

    `host` is the server's own name, which may differ from theirs once devices know those. A tier's limits are divided
    among `workers`.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        entropy: Entropy,
        host: str = "",
        workers: int = 1,
        *,
        users: UserDirectory = NO_USERS,
        roles: ScopedRoles = NOBODYS,
    ) -> None:
        """Create the registry; `users` may call the service API in addition to service keys.

        `roles` at a service end when the service is removed.
        """
        self._host = host
        self._database = database
        self._clock = clock
        self._entropy = entropy
        self._by_scope: dict[str, Instance] = {}
        self._loading = ReloadingCache(database, self._read, InstancesChanged)
        self.paces = Paces(workers)
        self._users, self._roles = users, roles

    async def load(self) -> None:
        """Load the provisioning services."""
        await self._loading.load()

    async def stop(self) -> None:
        """Stop the background tasks."""
        await self._loading.stop()

    async def _read(self) -> None:
        rows = await self._database.all(store.ALL_INSTANCES)
        self._by_scope = {row["id_scope"].lower(): store.INSTANCES.of(row) for row in rows}

    def all(self) -> Sequence[Instance]:
        """Return every instance, by name."""
        return sorted(self._by_scope.values(), key=lambda instance: instance.name)

    def by_scope(self, id_scope: str) -> Instance:
        """Return the instance of a scope, case-insensitive. Raise `UnknownScopeError`."""
        instance = self._by_scope.get(id_scope.lower())
        if instance is None:
            known = next((one.id_scope for one in sorted(self.all(), key=lambda one: one.name != FIRST)), "…")
            raise UnknownScopeError(scope=id_scope[:64], known=known)
        return instance

    def by_name(self, name: str) -> Instance:
        """Return the provisioning service with this name. Raise `UnknownInstanceError`."""
        found = next((i for i in self._by_scope.values() if i.name == name), None)
        if found is None:
            raise UnknownInstanceError(name=name)
        return found

    def guard_exists(self, name: str, otherwise: BirthmarkError) -> Changes:
        """Return a write guard that requires an instance of this name; `otherwise` is raised without one."""
        if not any(one.name == name for one in self._by_scope.values()):
            raise otherwise
        return Changes().run(store.NAME_IS_THERE, expect=1, otherwise=otherwise, key_name=name)

    async def create(self, name: str, host: str, *, actor: str) -> Instance:
        """Create an instance with a new scope and keys. Raise `InstanceExistsError`."""
        if any(i.name == name for i in self._by_scope.values()):
            raise InstanceExistsError(name=name)
        scope = IdScope("0ne" + self._entropy.token(4).hex().upper())
        keys = {policy: (self._entropy.token(32), self._entropy.token(32)) for policy in POLICIES}
        instance = Instance(scope, name, host, (), keys)
        changes = Changes().run(store.ADD_INSTANCE, **store.INSTANCES.row(instance))
        await self._commit(changes.audit(actor, "dps.create", name, id_scope=scope))
        return instance

    async def link(self, name: str, hub_host: str, *, actor: str) -> Instance:
        """Link a hub by its host name; a repeated call has no effect."""

        async def decide() -> Instance:
            instance = self.by_name(name)
            if hub_host in instance.hubs:
                return instance
            linked = replace(instance, hubs=(*instance.hubs, hub_host))
            return await self._put(linked, instance, Changes().audit(actor, "dps.link", name, hub=hub_host))

        return await retry_on_conflict(decide)

    async def move(self, name: str, host: str, hub_host: str, *, actor: str) -> Instance:
        """Change the host of an unused instance, and replace its linked hubs with one."""
        present = self.by_name(name)
        moved = replace(present, host=host, hubs=(hub_host,))
        return await self._put(moved, present, Changes().audit(actor, "dps.move", name, host=host, hub=hub_host))

    async def set_tier(self, name: str, tier: str | None, *, actor: str) -> Instance:
        """Set the tier of a service, or none. Raise `UnknownInstanceError`."""
        instance = self.by_name(name)
        gone = UnknownInstanceError(name=name)
        changes = Changes().audit(actor, "dps.tier", name, tier=tier or "none")
        key = {"key_id_scope": instance.id_scope, "key_name": name}
        changes.run(store.CHANGE_TIER, expect=1, otherwise=gone, tier=tier, **key)
        await self._commit(changes)
        return replace(instance, tier=tier)

    async def rotate(self, name: str, policy: str, which: Which, *, actor: str) -> Instance:
        """Replace a key of a policy. Raise `UnknownInstanceError` or `PolicyMissingError`."""

        async def decide() -> Instance:
            instance = self.by_name(name)
            fresh = self._entropy.token(32)
            made = replace(
                instance, policies=rotate_key(instance.policies, policy, which, fresh, f"The service {name}")
            )
            changes = Changes().audit(actor, "dps.key_rotate", name, policy=policy, which=which)
            row, was = store.INSTANCES.row(made), store.INSTANCES.row(instance)
            changes.run(
                store.CHANGE_KEYS,
                expect=1,
                otherwise=ChangedMeanwhileError(what="The provisioning service"),
                policies=row["policies"],
                key_id_scope=was["id_scope"],
                key_policies=was["policies"],
            )
            await self._commit(changes)
            return made

        return await retry_on_conflict(decide)

    async def audit_key_display(self, instance: Instance, policy: str, *, actor: str) -> None:
        """Record in the audit log that the actor is about to see the keys of a policy."""
        await self._database.commit(Changes().audit(actor, "dps.key_show", instance.name, policy=policy))

    async def delete(self, name: str, *, actor: str) -> None:
        """Remove an instance with all its records; its devices at hubs remain. Raise `UnknownInstanceError`."""
        instance = self.by_name(name)
        if name == FIRST:
            raise FirstInstanceError(name=name)
        scope = instance.id_scope
        missing = UnknownInstanceError(name=name)
        changes = Changes().run(store.DELETE_INSTANCE, expect=1, otherwise=missing, id_scope=scope, name=name)
        for statement in store.DROP_SCOPE:
            changes.run(statement, scope=scope)
        changes.run(device_name_prefix_index.FORGET_PLACE, place=store.place_of(scope))
        changes.audit(actor, "dps.delete", name, id_scope=scope)
        await self._roles.remove_scope(f"dps/{name}", changes, self._commit, actor=actor)

    async def unlink(self, hub_host: str, *, actor: str) -> None:
        """Unlink a hub from every instance."""

        async def decide() -> None:
            for instance in self.all():
                if hub_host in instance.hubs:
                    left = replace(instance, hubs=tuple(h for h in instance.hubs if h != hub_host))
                    changes = Changes().audit(actor, "dps.unlink", instance.name, hub=hub_host)
                    await self._put(left, instance, changes)

        await retry_on_conflict(decide)

    def take(self, operation: ThrottledOperation, instance: Instance, of: str = "") -> None:
        """Count an operation against a service's tier. Raise `DpsTierThrottledError`."""
        if instance.tier is not None:
            self.paces.take(operation, instance.name, self._clock.monotonic(), of)

    def authorize(self, authorization: str | None, resource: str, right: Right, address: str) -> tuple[Instance, str]:
        """Return the instance and the caller of a service API request. Raise `UnauthenticatedError`.

        A user needs `right` at the instance; otherwise `RightMissingError` is raised. The token must be for `resource`
        at the instance's own host or this server's; the Host header does not count.
        """
        if not authorization:
            raise ServiceTokenError(presented="no token")
        token = parse_sas(authorization)
        if is_user_policy(token.policy):
            return self._of_person(token, resource, right, address)
        problem: UnauthenticatedError = ServiceTokenError(presented=f"the policy {printable(token.policy)}")
        for instance in self._by_scope.values():
            pair = instance.policies.get(token.policy or "")
            if pair is None:
                continue
            try:
                check_sas(token, pair, self._clock.now())
            except UnauthenticatedError as error:
                problem = error
                continue
            self._check_resource(token, instance, resource)
            return instance, f"dps:{instance.name}"
        raise problem

    def _of_person(self, token: SasToken, resource: str, right: Right, address: str) -> tuple[Instance, str]:
        token_id, name = token_and_service_of(token.policy or "")
        user = self._users.find_user(token_id, address)
        instance = next((one for one in self._by_scope.values() if one.name == name), None)
        if user is None or instance is None:
            raise ServiceTokenError(presented=f"the policy {printable(token.policy)}")
        check_sas(token, [user.key], self._clock.now())
        count_for(f"user:{user.caller.user}")
        self._check_resource(token, instance, resource)
        require_right(user.caller, right, f"dps/{name}")
        return instance, user.caller.actor

    def _check_resource(self, token: SasToken, instance: Instance, resource: str) -> None:
        check_resource(token, [f"{host}{resource}" for host in (instance.host, self._host) if host])

    async def _put(self, instance: Instance, present: Instance, changes: Changes) -> Instance:
        row, was = store.INSTANCES.row(instance), store.INSTANCES.row(present)
        changes.run(
            store.REPLACE_INSTANCE,
            expect=1,
            otherwise=ChangedMeanwhileError(what="The provisioning service"),
            **{f"key_{name}": was[name] for name in ("id_scope", "host", "hubs")},
            **{name: row[name] for name in ("host", "hubs")},
        )
        await self._commit(changes)
        return instance

    async def _commit(self, changes: Changes) -> None:
        await self._loading.committed(self._database.commit(changes.event(InstancesChanged())))
