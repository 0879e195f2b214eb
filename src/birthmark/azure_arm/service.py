"""Authorization of management requests, and the views, CA certificates, policies and routes that they use."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from birthmark.actor import Actor
from birthmark.auth.access_token_cloud_credentials import is_user_policy
from birthmark.auth.permission_statements import Right
from birthmark.auth.principals import Caller
from birthmark.auth.shared_access_policy_keys import Keys
from birthmark.azure_arm import wire
from birthmark.azure_arm.hub_routing_wire import (
    check_as_shown,
    fallback_json,
    mistake_json,
    parse_test_all,
    parse_test_one,
    route_json,
    routing_json,
    routing_of,
)
from birthmark.azure_arm.model import ArmRequest, ArmResourceKind
from birthmark.azure_arm.rules.operation_paths import OperationNotServedError
from birthmark.broker.rules.stream_partitions_and_positions import PARTITIONS
from birthmark.dps.model import Instance
from birthmark.dps.service import Authorities, Instances
from birthmark.errors import ConflictError, UnauthenticatedError
from birthmark.iam.missing_right_errors import require_right
from birthmark.iam.service import People, TokenRefusedError
from birthmark.iothub.model import Hub
from birthmark.iothub.rules.routes import configuration_changes, route_matcher
from birthmark.iothub.rules.tier_throttles_and_quotas import Tier, edition_of
from birthmark.iothub.service import IotHub
from birthmark.iothub.wire.stored_routing_configuration import BUILT_IN, MAX_ROUTES, Routing, StoredRouting
from birthmark.message_routing.rules.conditions import RoutedSubject, SqlMistake, parse_condition
from birthmark.net.fair_scheduler import yield_turn
from birthmark.pki.certificates import Certificate
from birthmark.pki.registered_ca_certificate import CaCertificate

_BEARER, _STANDARD = "bearer", 443
_UNLIMITED = 2**63 - 1


class ManagementTokenError(UnauthenticatedError):
    """The token is not a registered user's access token."""

    code = "management.token_refused"
    message = "Authentication failed: the Authorization header has no registered user's access token"
    cause = "A management call presented {presented}, but management calls require a user's access token."
    fix = (
        "Create a user and an access token: `birthmark user create ci --role admin` and `birthmark token create "
        "--user ci`. Configure the SDK's credential to return the access token."
    )
    presented: str


class HubChangedError(ConflictError):
    """The hub has changed since it was read."""

    code = "management.hub_changed"
    message = "The hub {hub} has changed since it was read"
    cause = "A request to change the hub {hub} is based on an earlier version of its routes."
    fix = "Read the hub again and repeat the change. To list the hub's routes: `birthmark hub route ls --hub {hub}`"
    hub: str


def _none(hub: Hub) -> StoredRouting:
    return StoredRouting(hub.name, "", 0, Routing(), {}, datetime.min.replace(tzinfo=UTC))


class CertificatesOf(Protocol):
    """CA certificate operations of a package; `of` identifies the service.

    Each raises its package's errors.
    """

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
    """Management API over DPS and the hubs."""

    people: People
    instances: Instances
    authorities: Authorities
    iothub: IotHub
    https_port: Callable[[], int]
    kinds: frozenset[ArmResourceKind] = frozenset(ArmResourceKind)
    """Service kinds that this server supports."""

    def authenticate(self, authorization: str | None, address: str) -> Caller:
        """Return the authenticated user. Raise `ManagementTokenError`."""
        kind, _, token = (authorization or "").partition(" ")
        if kind.lower() != _BEARER or not is_user_policy(token):
            raise ManagementTokenError(presented="another Authorization" if authorization else "no Authorization")
        try:
            return self.people.caller(token.strip(), address)
        except TokenRefusedError as error:
            presented = "an access token that is unknown, revoked or expired"
            raise ManagementTokenError(presented=presented) from error

    def check(self, request: ArmRequest, caller: Caller) -> None:
        """Raise `RightMissingError` if the caller lacks the permission, whether the service exists or not."""
        if request.operation.right is not None:
            require_right(caller, request.operation.right, request.kind.place(request.service))

    def certificates(self, request: ArmRequest) -> tuple[CertificatesOf, Any]:
        """Return the CA certificates of a request's service, and the key that identifies the service there."""
        if request.kind is ArmResourceKind.DPS:
            return self.authorities, self.instances.by_name(request.service).id_scope
        return self.iothub.authorities, self.iothub.hubs.by_name(request.service)

    def policies(self, request: ArmRequest) -> Keys:
        """Return the policies of a service with their keys."""
        return self._service(request).policies

    async def audit_key_display(self, request: ArmRequest, policy: str, actor: Actor) -> None:
        """Write an audit entry before a policy's keys are displayed."""
        if request.kind is ArmResourceKind.DPS:
            await self.instances.audit_key_display(self.instances.by_name(request.service), policy, actor=actor)
        else:
            await self.iothub.hubs.audit_key_display(self.iothub.hubs.by_name(request.service), policy, actor=actor)

    async def statistics(self, request: ArmRequest) -> tuple[int, int]:
        """Return the number of devices of a hub, and the number of enabled devices."""
        return await self.iothub.registry.count(self.iothub.hubs.by_name(request.service))

    def hub(self, request: ArmRequest) -> Hub:
        """Return the hub of a request. Raise `UnknownHubError`."""
        return self.iothub.hubs.by_name(request.service)

    async def quota_metrics(self, request: ArmRequest) -> Sequence[Mapping[str, Any]]:
        """Return the use of a hub's quotas; without a tier, only the number of devices."""
        hub = self.hub(request)
        total, _ = await self.iothub.registry.count(hub)
        throttles = self.iothub.throttles
        if (throttle := throttles.of(hub.name)) is None:
            return [wire.quota_json("TotalDeviceCount", total, _UNLIMITED)]
        edition, sent = throttle.edition, throttle.messages(throttles.today())
        return [
            wire.quota_json("TotalMessages", sent, edition.most_messages),
            wire.quota_json("TotalDeviceCount", total, edition.most_devices),
        ]

    def view(self, request: ArmRequest) -> dict[str, Any]:
        """Return the JSON view of a service."""
        return self._view(request, self._service(request))

    def views(self, request: ArmRequest, caller: Caller) -> Sequence[dict[str, Any]]:
        """Return the services that the caller may read."""
        every: Sequence[Instance | Hub] = (
            self.instances.all() if request.kind is ArmResourceKind.DPS else self.iothub.hubs.all()
        )
        seen = (one for one in every if caller.rights.allow(Right.READ, request.kind.place(one.name)))
        return [self._view(request, one) for one in seen]

    # ---- routes of a hub

    async def put_service(self, request: ArmRequest, body: bytes, etag: str | None, *, actor: Actor) -> dict[str, Any]:
        """Replace the routes of a hub with those of a body that otherwise matches the hub; return the hub.

        Raise `OperationNotServedError` for an unknown hub, `AuthorityChangedError` for a different ETag.
        """
        if self.is_free(ArmResourceKind.HUB, request.service):
            raise OperationNotServedError(method="PUT", path=f"IotHubs/{request.service}")
        hub = self.iothub.hubs.by_name(request.service)
        shown = self._view(request, hub)
        given, etag_of_body = check_as_shown(body, shown)
        etag = etag or etag_of_body
        if etag is not None and etag not in {"*", shown["etag"]}:
            raise HubChangedError(hub=hub.name)
        if given is None:
            return shown
        known = self.iothub.routes.ready(hub.name)
        for route in routing_of(given, Routing(), hub.name).routes[:MAX_ROUTES]:
            configuration_changes.compiled(route.condition, hub.name, configuration_changes.read_once)
            await yield_turn()
        revision = None if etag in {None, "*"} else 0 if known is None else known.kept.revision
        await self.iothub.routes.change(
            hub,
            lambda before: configuration_changes.validate_routing(routing_of(given, before, hub.name), hub.name),
            "iothub.route_change",
            hub.name,
            actor=actor,
            revision=revision,
        )
        return self._view(request, hub)

    def test_all_routes(self, request: ArmRequest, body: bytes) -> Sequence[Mapping[str, Any]]:
        """Return the routes of a hub that match a message."""
        hub = self.iothub.hubs.by_name(request.service)
        asked = parse_test_all(body)
        ready = self.iothub.routes.ready(hub.name) or route_matcher.prepare_routing(_none(hub))
        source = configuration_changes.parse_source(asked.source, hub.name)
        found = [name for name, _ in route_matcher.matching(ready, source, asked.message, asked.twin)]
        routes = {one.name: one for one in ready.kept.routing.routes}
        return [route_json(routes[name]) if name in routes else fallback_json(ready.kept.routing) for name in found]

    def test_route(self, request: ArmRequest, body: bytes) -> Mapping[str, Any]:
        """Return whether a route matches a message, or the error in its condition."""
        hub = self.iothub.hubs.by_name(request.service)
        asked, route = parse_test_one(body, hub.name)
        try:
            condition = parse_condition(route.condition)
        except SqlMistake as error:
            return {"result": "undefined", "details": {"compilationErrors": [mistake_json(error)]}}
        is_taken = route_matcher.is_match(condition, RoutedSubject(asked.message, asked.twin), route.name)
        return {"result": "true" if is_taken else "false", "details": {"compilationErrors": []}}

    async def endpoints_health(self, request: ArmRequest) -> Sequence[Mapping[str, Any]]:
        """Return the health of each endpoint."""
        hub = self.iothub.hubs.by_name(request.service)
        routing, lanes = await self.iothub.routes.routing(hub), await self.iothub.routes.lanes(hub)
        found: list[Mapping[str, Any]] = []
        for name in (BUILT_IN, *(one.name for one in routing.endpoints)):
            own = [lane for (_, endpoint), lane in lanes.items() if endpoint == name]
            is_waiting = any(one.count > one.dead for one in own)
            status = "unhealthy" if is_waiting else "degraded" if any(one.dead for one in own) else "healthy"
            found.append({"endpointId": name, "healthStatus": status})
        return found

    def is_free(self, kind: ArmResourceKind, name: str) -> bool:
        """Return whether the name is available for a service of that kind."""
        every: Sequence[Instance | Hub] = (
            self.instances.all() if kind is ArmResourceKind.DPS else self.iothub.hubs.all()
        )
        return all(one.name != name for one in every)

    def _service(self, request: ArmRequest) -> Instance | Hub:
        of = self.instances if request.kind is ArmResourceKind.DPS else self.iothub.hubs
        return of.by_name(request.service)

    def _view(self, request: ArmRequest, one: Instance | Hub) -> dict[str, Any]:
        sku: dict[str, Any] = {"name": "S1", "tier": "Standard", "capacity": 1}
        if isinstance(one, Hub):
            if one.tier is not None:
                edition = edition_of(one.tier)
                kind = "Free" if edition.tier is Tier.F1 else "Standard"
                sku = {"name": edition.tier.value, "tier": kind, "capacity": edition.units}
            known = self.iothub.routes.ready(one.name)
            routing = routing_json(Routing() if known is None else known.kept.routing)
            events = wire.event_endpoint_json(one.name, one.host, PARTITIONS, self.iothub.telemetry.keep_days)
            shown = {
                "hostName": self._external_host(one.host),
                "features": "None",
                "routing": routing,
                "eventHubEndpoints": {"events": events},
            }
            return wire.service_json(request, one.name, sku, shown, 0 if known is None else known.kept.revision)
        linked = [{"name": host, "location": wire.LOCATION} for host in one.hubs]
        properties = {
            "allocationPolicy": "Hashed",
            "deviceProvisioningHostName": one.host,
            "idScope": one.id_scope,
            "iotHubs": linked,
            "serviceOperationsHostName": self._external_host(one.host),
        }
        return wire.service_json(request, one.name, sku, properties)

    def _external_host(self, host: str) -> str:
        """Return the external host name, with the port if it is not the standard port."""
        port = self.https_port()
        return host if port == _STANDARD else f"{host}:{port}"
