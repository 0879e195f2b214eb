"""Operator API of IoT Hub: hubs, their devices, and received telemetry."""

from collections.abc import Sequence
from typing import Annotated, Any, Protocol

import msgspec

from birthmark.auth.permission_statements import Right
from birthmark.broker.rules.stream_partitions_and_positions import parse_positions
from birthmark.dps.service import Instances
from birthmark.iothub.model import Hub, TelemetryMessage
from birthmark.iothub.rules.tier_throttles_and_quotas import edition_of, parse_edition
from birthmark.iothub.service import IotHub
from birthmark.net.fair_scheduler import collect_page, iterate_async
from birthmark.operator_api.api_router import (
    ApiRequest,
    Endpoint,
    LineStream,
    Rows,
)
from birthmark.operator_api.dps_instances_and_cas import Verification, authority_view
from birthmark.operator_api.message_stream_pages import StreamPosition, StreamQuery, beginning, pages
from birthmark.operator_api.name_validation import parse_host, parse_name
from birthmark.pki.certificates import parse_any, parse_ca
from birthmark.store import from_micros
from birthmark.untrusted_json_and_text import readable


class NewHub(msgspec.Struct):
    """A hub to create, with its host name."""

    name: str
    host: str
    tier: str | None = None
    units: int = 1


class NewHubCa(msgspec.Struct):
    """A CA by its certificate, PEM or base64."""

    name: str
    certificate: str
    verified: bool = False


class HubTier(msgspec.Struct):
    """Tier and units; null for none."""

    tier: str | None
    units: int = 1


class MessagesQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Number of latest messages, of one device or of all."""

    device: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 100


class ServedNames(Protocol):
    """The names in the server's certificate."""

    def covers(self, host: str) -> bool: ...

    def hosts(self) -> Sequence[str]: ...


def endpoints(iothub: IotHub, instances: Instances, served: ServedNames) -> Sequence[Endpoint]:
    """Return the routes of `birthmark hub`."""
    hubs = iothub.hubs

    async def listing(_asked: ApiRequest) -> Rows:
        return Rows([_hub_view(hub) for hub in hubs.all()])

    async def create(request: ApiRequest) -> Any:
        body, name = request.body, parse_name(request.body.name)
        edition = None if body.tier is None else parse_edition(body.tier, body.units, name)
        made = await hubs.create(name, parse_host(body.host, name, "hub"), edition, actor=request.actor)
        taken = {one.host.lower() for one in hubs.all()}
        free = [name for name in served.hosts() if name.lower() not in taken]
        return _hub_view(made) | {"in_certificate": served.covers(made.host), "names_that_fit": free}

    async def set_tier(request: ApiRequest) -> Any:
        name, wanted = request["name"], request.body
        edition = None if wanted.tier is None else parse_edition(wanted.tier, wanted.units, name)
        return _hub_view(await hubs.set_tier(name, edition, actor=request.actor))

    async def delete(request: ApiRequest) -> None:
        hub = hubs.by_name(request["name"])
        await hubs.delete(hub.name, actor=request.actor)
        await instances.unlink(hub.host, actor=request.actor)

    async def is_there(request: ApiRequest) -> bool:
        return hubs.by_name(request["name"]) is not None

    async def messages(request: ApiRequest) -> Rows:
        query: MessagesQuery = request.query
        hub = hubs.by_name(request["name"])
        found = await iothub.telemetry.stream(hub).latest(query.limit, query.device)
        newest = (_message_view(hub, one) for one in reversed(found))
        return Rows((await collect_page(iterate_async(newest), lambda view: 2 * len(view["body"])))[::-1])

    async def stream(request: ApiRequest) -> LineStream:
        query: StreamQuery = request.query
        hub = hubs.by_name(request["name"])
        found = iothub.telemetry.stream(hub)
        return LineStream(pages(found, await beginning(found, query), query, lambda one: _message_view(hub, one)))

    async def note_place(request: ApiRequest) -> None:
        hub, place = hubs.by_name(request["name"]), parse_positions(request.body.after)
        await iothub.telemetry.stream(hub).set_position(parse_name(request["group"]), place)

    one, rule = "/hubs/{name}", Right.ADMINISTER
    return [
        Endpoint("GET", "/hubs", Right.READ, "List hubs.", listing, rows_at="hub/{name}"),
        Endpoint("POST", "/hubs", rule, "Create a hub.", create, NewHub, status=201),
        Endpoint("PUT", f"{one}/tier", rule, "Set the tier.", set_tier, HubTier),
        Endpoint(
            "DELETE",
            one,
            Right.ADMINISTER,
            "Delete a hub, its devices and messages.",
            delete,
            status=204,
            is_final=is_there,
        ),
        Endpoint("GET", f"{one}/messages", Right.READ, "List the latest telemetry.", messages, query=MessagesQuery),
        Endpoint(
            "GET",
            f"{one}/stream",
            Right.READ,
            "Stream telemetry, one JSON line per message.",
            stream,
            query=StreamQuery,
        ),
        Endpoint(
            "PUT",
            f"{one}/groups/{{group}}",
            Right.OPERATE,
            "Store the position of a consumer group.",
            note_place,
            StreamPosition,
            status=204,
        ),
    ]


def ca_endpoints(iothub: IotHub) -> Sequence[Endpoint]:
    """Return the routes of `birthmark hub ca`."""
    hubs, authorities = iothub.hubs, iothub.authorities

    async def list_cas(request: ApiRequest) -> Rows:
        return Rows([authority_view(one) for one in await authorities.all(hubs.by_name(request["name"]))])

    async def add_ca(request: ApiRequest) -> Any:
        body: NewHubCa = request.body
        hub, name, certificate = hubs.by_name(request["name"]), parse_name(body.name), parse_ca(body.certificate)
        made = await authorities.add(hub, name, certificate, is_verified=body.verified, actor=request.actor)
        return authority_view(made)

    async def remove_ca(request: ApiRequest) -> None:
        await authorities.remove(hubs.by_name(request["name"]), request["ca"], actor=request.actor)

    async def code(request: ApiRequest) -> Any:
        made = await authorities.new_code(hubs.by_name(request["name"]), request["ca"], actor=request.actor)
        return {"code": made.verification_code}

    async def verify(request: ApiRequest) -> Any:
        """Mark a CA as verified by proof of possession, or by the operator's confirmation."""
        hub, name, proof = hubs.by_name(request["name"]), request["ca"], request.body.certificate
        if proof is not None:
            return authority_view(await authorities.verify(hub, name, parse_any(proof), actor=request.actor))
        present = await authorities.get(hub, name)
        made = await authorities.add(hub, name, present.certificate, is_verified=True, actor=request.actor)
        return authority_view(made)

    every = "/hubs/{name}/cas"
    one = f"{every}/{{ca}}"
    return [
        Endpoint("GET", every, Right.READ, "List the CA certificates of a hub.", list_cas),
        Endpoint("POST", every, Right.TRUST, "Add a CA certificate to a hub.", add_ca, NewHubCa, status=201),
        Endpoint("DELETE", one, Right.TRUST, "Delete a CA certificate of a hub.", remove_ca, status=204),
        Endpoint("POST", f"{one}/code", Right.TRUST, "Create a verification code of a hub's CA certificate.", code),
        Endpoint(
            "POST",
            f"{one}/verify",
            Right.TRUST,
            "Verify a hub's CA certificate with a proof of possession.",
            verify,
            Verification,
        ),
    ]


def _hub_view(hub: Hub) -> dict[str, Any]:
    return {"name": hub.name, "host": hub.host, "tier": None if hub.tier is None else str(edition_of(hub.tier))}


def _message_view(hub: Hub, message: TelemetryMessage) -> dict[str, Any]:
    body, encoding = readable(message.body)
    return {
        "hub": hub.name,
        "device": message.device_id,
        "enqueued": from_micros(message.enqueued_micros).isoformat(),
        "body": body,
        "encoding": encoding,
        "system": message.system,
        "properties": message.properties,
    }
