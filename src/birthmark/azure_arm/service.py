"""Who may ask what, and the services that answer: DPS and the hubs through one shape."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from birthmark.actor import Actor
from birthmark.auth.permissions import Right
from birthmark.auth.principals import Caller
from birthmark.auth.shared_access_policies import Keys
from birthmark.auth.user_credentials import is_of_person
from birthmark.azure_arm import wire
from birthmark.azure_arm.operations import ArmRequest, ArmResourceKind
from birthmark.azure_arm.routing_wire import (
    check_as_shown,
    fallback_json,
    mistake_json,
    parse_test_all,
    parse_test_one,
    route_json,
    routing_json,
    routing_of,
)
from birthmark.azure_arm.rules.paths import OperationNotServedError
from birthmark.dps.model import Instance
from birthmark.dps.service import Authorities, Instances
from birthmark.errors import ConflictError, UnauthenticatedError
from birthmark.iam.authorization import demand
from birthmark.iam.service import People, TokenRefusedError
from birthmark.iothub.model import Hub
from birthmark.iothub.rules.routes import configuration, matching
from birthmark.iothub.rules.tiers import Tier, edition_of
from birthmark.iothub.service import IotHub
from birthmark.iothub.wire.routing import BUILT_IN, MAX_ROUTES, Routing, StoredRouting
from birthmark.message_routing.rules.conditions import RoutedSubject, SqlMistake, parse_condition
from birthmark.net.fair_scheduler import give_way
from birthmark.pki.certificates import Certificate
from birthmark.pki.verified_ca import CaCertificate

_BEARER, _STANDARD = "bearer", 443


class ManagementTokenError(UnauthenticatedError):
    """The token is not a registered user's access token."""

    code = "management.token_refused"
    message = "Authentication failed: the Authorization header has no registered user's access token"
    cause = "A management call presented {presented}; it requires a user's access token."
    fix = (
        "Create a user and an access token, and return the token from the SDK's credential: `birthmark user create ci "
        "--role admin` and `birthmark token create --user ci`"
    )
    presented: str


class HubChangedError(ConflictError):
    """The hub has changed since it was read."""

    code = "management.hub_changed"
    message = "The hub {hub} has changed since it was read"
    cause = "A request to change the hub {hub} is based on an earlier version of its routes."
    fix = "Read it again and repeat the change. List its routes: `birthmark hub route ls --hub {hub}`"
    hub: str


def _none(hub: Hub) -> StoredRouting:
    return StoredRouting(hub.name, "", 0, Routing(), {}, datetime.min.replace(tzinfo=UTC))


class CertificatesOf(Protocol):
    """The CA certificates of a room; `of` is which one of its services. Each raises what its room says."""

    async def all(self, of: Any, /) -> Sequence[CaCertificate]: ...
    async def get(self, of: Any, name: str, /) -> CaCertificate: ...
    async def add(
        self, of: Any, name: str, certificate: Certificate, /, *, is_verified: bool, actor: Actor, etag: str | None
    ) -> CaCertificate: ...
    async def new_code(self, of: Any, name: str, /, *, actor: Actor, etag: str) -> CaCertificate: ...
    async def verify(self, of: Any, name: str, proof: Certificate, /, *, actor: Actor, etag: str) -> CaCertificate: ...
    async def remove(self, of: Any, name: str, /, *, actor: Actor, etag: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Management:
    """The management interface over the rooms."""

    people: People
    instances: Instances
    authorities: Authorities
    iothub: IotHub
    https_port: Callable[[], int]
    kinds: frozenset[ArmResourceKind] = frozenset(ArmResourceKind)
    """Those that this server serves."""

    def caller(self, authorization: str | None, address: str) -> Caller:
        """Return which person asks. Raise `ManagementTokenError`."""
        kind, _, token = (authorization or "").partition(" ")
        if kind.lower() != _BEARER or not is_of_person(token):
            raise ManagementTokenError(presented="another Authorization" if authorization else "no Authorization")
        try:
            return self.people.caller(token.strip(), address)
        except TokenRefusedError as error:
            presented = "a token that is unknown here, was taken back, or has ended"
            raise ManagementTokenError(presented=presented) from error

    def check(self, call: ArmRequest, caller: Caller) -> None:
        """Raise `RightMissingError` where the caller may not, whether there is such a service or not."""
        if call.operation.right is not None:
            demand(caller, call.operation.right, call.kind.place(call.service))

    def certificates(self, call: ArmRequest) -> tuple[CertificatesOf, Any]:
        """Return the CA certificates that a call is about: those of a room, and of which service of it."""
        if call.kind is ArmResourceKind.DPS:
            return self.authorities, self.instances.by_name(call.service).id_scope
        return self.iothub.authorities, self.iothub.hubs.by_name(call.service)

    def policies(self, call: ArmRequest) -> Keys:
        """Return the policies of a service with their keys."""
        return self._service(call).policies

    async def note_shown(self, call: ArmRequest, policy: str, actor: Actor) -> None:
        """Write down who is about to be shown the keys of a policy."""
        if call.kind is ArmResourceKind.DPS:
            await self.instances.note_shown(self.instances.by_name(call.service), policy, actor=actor)
        else:
            await self.iothub.hubs.note_shown(self.iothub.hubs.by_name(call.service), policy, actor=actor)

    async def statistics(self, call: ArmRequest) -> tuple[int, int]:
        """Return how many devices a hub has, and how many of them may connect."""
        return await self.iothub.registry.count(self.iothub.hubs.by_name(call.service))

    def view(self, call: ArmRequest) -> dict[str, Any]:
        """Return a service as it is."""
        return self._view(call, self._service(call))

    def views(self, call: ArmRequest, caller: Caller) -> Sequence[dict[str, Any]]:
        """Return the services that the caller may look at."""
        every: Sequence[Instance | Hub] = (
            self.instances.all() if call.kind is ArmResourceKind.DPS else self.iothub.hubs.all()
        )
        seen = (one for one in every if caller.rights.allow(Right.READ, call.kind.place(one.name)))
        return [self._view(call, one) for one in seen]

    # ---- routes of a hub

    async def put_service(self, call: ArmRequest, body: bytes, etag: str | None, *, actor: Actor) -> dict[str, Any]:
        """Give a hub the routes of a body, which is otherwise as the hub is shown; return it.

        Raise `OperationNotServedError` where there is no such hub, `AuthorityChangedError` for another etag.
        """
        if self.is_free(ArmResourceKind.HUB, call.service):
            raise OperationNotServedError(method="PUT", path=f"IotHubs/{call.service}")
        hub = self.iothub.hubs.by_name(call.service)
        shown = self._view(call, hub)
        given, etag_of_body = check_as_shown(body, shown)
        etag = etag or etag_of_body
        if etag is not None and etag not in {"*", shown["etag"]}:
            raise HubChangedError(hub=hub.name)
        if given is None:
            return shown
        known = self.iothub.routes.ready(hub.name)
        for route in routing_of(given, Routing(), hub.name).routes[:MAX_ROUTES]:
            configuration.compiled(route.condition, hub.name, configuration.read_once)
            await give_way()
        revision = None if etag in {None, "*"} else 0 if known is None else known.kept.revision
        await self.iothub.routes.change(
            hub,
            lambda before: configuration.checked(routing_of(given, before, hub.name), hub.name),
            "iothub.route_change",
            hub.name,
            actor=actor,
            revision=revision,
        )
        return self._view(call, hub)

    def tested(self, call: ArmRequest, body: bytes) -> Sequence[Mapping[str, Any]]:
        """Return the routes of a hub that would take a message."""
        hub = self.iothub.hubs.by_name(call.service)
        asked = parse_test_all(body)
        ready = self.iothub.routes.ready(hub.name) or matching.make_ready(_none(hub))
        source = configuration.parse_source(asked.source, hub.name)
        found = [name for name, _ in matching.matching(ready, source, asked.message, asked.twin)]
        routes = {one.name: one for one in ready.kept.routing.routes}
        return [route_json(routes[name]) if name in routes else fallback_json(ready.kept.routing) for name in found]

    def tested_one(self, call: ArmRequest, body: bytes) -> Mapping[str, Any]:
        """Return whether a route would take a message, or what is wrong with its condition."""
        hub = self.iothub.hubs.by_name(call.service)
        asked, route = parse_test_one(body, hub.name)
        try:
            condition = parse_condition(route.condition)
        except SqlMistake as error:
            return {"result": "undefined", "details": {"compilationErrors": [mistake_json(error)]}}
        is_taken = matching.takes(condition, RoutedSubject(asked.message, asked.twin), route.name)
        return {"result": "true" if is_taken else "false", "details": {"compilationErrors": []}}

    async def endpoints_health(self, call: ArmRequest) -> Sequence[Mapping[str, Any]]:
        """Return of each endpoint whether it takes what is sent there."""
        hub = self.iothub.hubs.by_name(call.service)
        routing, lanes = await self.iothub.routes.routing(hub), await self.iothub.routes.lanes(hub)
        found: list[Mapping[str, Any]] = []
        for name in (BUILT_IN, *(one.name for one in routing.endpoints)):
            own = [lane for (_, endpoint), lane in lanes.items() if endpoint == name]
            is_waiting = any(one.count > one.dead for one in own)
            status = "unhealthy" if is_waiting else "degraded" if any(one.dead for one in own) else "healthy"
            found.append({"endpointId": name, "healthStatus": status})
        return found

    def is_free(self, kind: ArmResourceKind, name: str) -> bool:
        """Say whether no service of that kind has this name."""
        every: Sequence[Instance | Hub] = (
            self.instances.all() if kind is ArmResourceKind.DPS else self.iothub.hubs.all()
        )
        return all(one.name != name for one in every)

    def _service(self, call: ArmRequest) -> Instance | Hub:
        of = self.instances if call.kind is ArmResourceKind.DPS else self.iothub.hubs
        return of.by_name(call.service)

    def _view(self, call: ArmRequest, one: Instance | Hub) -> dict[str, Any]:
        sku: dict[str, Any] = {"name": "S1", "tier": "Standard", "capacity": 1}
        if isinstance(one, Hub):
            if one.tier is not None:
                edition = edition_of(one.tier)
                kind = "Free" if edition.tier is Tier.F1 else "Standard"
                sku = {"name": edition.tier.value, "tier": kind, "capacity": edition.units}
            known = self.iothub.routes.ready(one.name)
            routing = routing_json(Routing() if known is None else known.kept.routing)
            shown = {"hostName": self._at(one.host), "features": "None", "routing": routing}
            return wire.service_json(call, one.name, sku, shown, 0 if known is None else known.kept.revision)
        linked = [{"name": host, "location": wire.LOCATION} for host in one.hubs]
        properties = {
            "allocationPolicy": "Hashed",
            "deviceProvisioningHostName": one.host,
            "idScope": one.id_scope,
            "iotHubs": linked,
            "serviceOperationsHostName": self._at(one.host),
        }
        return wire.service_json(call, one.name, sku, properties)

    def _at(self, host: str) -> str:
        """Return where programs of the service reach a host, which may be at another port than the standard's."""
        port = self.https_port()
        return host if port == _STANDARD else f"{host}:{port}"
