"""CA certificates with their proof of possession, and services as they are, by Azure's own management SDKs."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.core import MatchConditions
from azure.core.credentials import AccessToken
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.mgmt.iothub import IotHubClient
from azure.mgmt.iothub import models as hub_models
from azure.mgmt.iothubprovisioningservices import IotDpsClient
from azure.mgmt.iothubprovisioningservices import models as dps_models

from birthmark.fleet.azure_connection_string_lookup import AzureAccount, connect
from birthmark.pki.ca_possession_proof import prove_possession
from birthmark.pki.certificates import Certificate
from support.pki.pki_builders import Holder, a_ca
from support.server.servers import RunningServer

pytestmark = pytest.mark.system
NOW = datetime.now(UTC)
SAME = MatchConditions.IfNotModified
AT = ("factory", "birthmark")
"""A resource group of the client's own choice, and the service."""


class SignedIn:
    """A credential as azure-identity's are, which hands out a token of a person."""

    def __init__(self, token: str) -> None:
        self.token = token

    def get_token(self, *_scopes: str, **_: Any) -> AccessToken:
        return AccessToken(self.token, 2**40)


class Office:
    """People of a server, and the SDKs in their names."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.url = f"https://{server.address}:8443"
        self.at: dict[str, Any] = {
            "base_url": self.url,
            "credential_scopes": [f"{self.url}/.default"],
            "connection_verify": server.endpoints["trust_bundle"],
            "retry_total": 0,
        }

    def token(self, name: str, role: str, place: str = "*") -> str:
        out = str(self.server.data.parent / f"{name}.invitation")
        self.server.run("user", "create", name, "--role", role, "--at", place, "--out", out)
        return str(json.loads(self.server.run("token", "create", "sdk", "--user", name, "--json").stdout)["token"])

    def dps(self, token: str) -> Any:
        return IotDpsClient(SignedIn(token), "any-subscription", **self.at)

    def hubs(self, token: str) -> Any:
        return IotHubClient(SignedIn(token), "any-subscription", **self.at)


@pytest.fixture(scope="module")
def office(server: RunningServer) -> Office:
    return Office(server)


@pytest.fixture(scope="module")
def admin(office: Office) -> str:
    return office.token("mgmt-admin", "admin")


def status_of(error: HttpResponseError) -> tuple[int | None, str | None]:
    assert error.error is not None
    return error.status_code, error.error.code


def proof_of(ca: Holder, code: str) -> Certificate:
    return prove_possession(
        code, ca.as_issuer, ca.private_key.public_key(), serial=7, now=NOW, lifetime=timedelta(hours=1)
    )


def wanted(ca: Holder, **more: Any) -> dps_models.CertificateResponse:
    properties = dps_models.CertificateProperties(certificate=ca.certificate.pem().encode(), **more)
    return dps_models.CertificateResponse(properties=properties)


def test_a_ca_of_a_provisioning_service_is_put_proven_and_removed(office: Office, admin: str) -> None:
    client, ca = office.dps(admin).dps_certificate, a_ca("Managed", now=NOW)
    made = client.create_or_update(*AT, "managed", wanted(ca))
    assert (made.name, made.properties.is_verified) == ("managed", False)
    assert made.type == "Microsoft.Devices/provisioningServices/Certificates"
    assert made.id.startswith("/subscriptions/any-subscription/resourceGroups/factory/providers/Microsoft.Devices/")
    assert made.properties.certificate == ca.certificate.der
    assert made.properties.thumbprint == ca.certificate.x5t_sha1.hex().upper()
    assert made.properties.expiry == ca.certificate.not_after

    asked = client.generate_verification_code("managed", *AT, etag=made.etag, match_condition=SAME)
    code = asked.properties.verification_code
    proof = dps_models.VerificationCodeRequest(certificate=proof_of(ca, code).pem())
    proven = client.verify_certificate("managed", *AT, proof, etag=asked.etag, match_condition=SAME)
    assert proven.properties.is_verified
    assert client.get("managed", *AT).etag == proven.etag
    assert [row["verified"] for row in office.server.rows("dps", "ca", "ls") if row["name"] == "managed"] == [True]

    client.delete(*AT, "managed", etag=proven.etag, match_condition=SAME)
    assert "managed" not in {one.name for one in client.list(*AT).value}
    with pytest.raises(ResourceNotFoundError, match="ResourceNotFound"):
        client.get("managed", *AT)
    client.delete(*AT, "managed", etag="*", match_condition=MatchConditions.IfPresent)  # as of what is not there


def test_a_ca_of_a_hub_is_put_proven_and_removed(office: Office, admin: str) -> None:
    client, ca = office.hubs(admin).certificates, a_ca("Managed Hub", now=NOW)
    made = client.create_or_update(*AT, "managed", {"properties": {"certificate": ca.certificate.pem()}})
    assert (made.name, made.properties.is_verified) == ("managed", False)
    assert made.type == "Microsoft.Devices/IotHubs/Certificates"
    asked = client.generate_verification_code(*AT, "managed", made.etag)
    proof = {"certificate": proof_of(ca, asked.properties.verification_code).pem()}
    proven = client.verify(*AT, "managed", asked.etag, proof)
    assert proven.properties.is_verified
    assert client.get(*AT, "managed").properties.thumbprint == ca.certificate.x5t_sha1.hex().upper()
    assert [row["verified"] for row in office.server.rows("hub", "ca", "ls") if row["name"] == "managed"] == [True]
    client.delete(*AT, "managed", proven.etag)
    assert "managed" not in {one.name for one in client.list_by_iot_hub(*AT).value}


def test_a_certificate_may_count_by_the_word_of_whoever_puts_it(office: Office, admin: str) -> None:
    client, ca = office.dps(admin).dps_certificate, a_ca("By Word", now=NOW)
    assert client.create_or_update(*AT, "by-word", wanted(ca, is_verified=True)).properties.is_verified
    assert client.create_or_update(*AT, "by-word", wanted(ca)).properties.is_verified
    with pytest.raises(HttpResponseError, match="delete it first"):
        client.create_or_update(*AT, "by-word", wanted(ca, is_verified=False))


def test_a_proof_by_another_key_or_of_an_earlier_code_proves_nothing(office: Office, admin: str) -> None:
    client, ca = office.dps(admin).dps_certificate, a_ca("Unproven", now=NOW)
    made = client.create_or_update(*AT, "unproven", wanted(ca))
    first = client.generate_verification_code("unproven", *AT, etag=made.etag, match_condition=SAME)
    second = client.generate_verification_code("unproven", *AT, etag=first.etag, match_condition=SAME)
    code = second.properties.verification_code
    assert code != first.properties.verification_code
    for proof in (proof_of(a_ca("Unproven", now=NOW), code), proof_of(ca, first.properties.verification_code)):
        body = dps_models.VerificationCodeRequest(certificate=proof.pem())
        with pytest.raises(HttpResponseError) as caught:
            client.verify_certificate("unproven", *AT, body, etag=second.etag, match_condition=SAME)
        assert status_of(caught.value) == (400, "CertificateVerificationFailed")
    assert not client.get("unproven", *AT).properties.is_verified


def test_a_change_is_refused_that_is_meant_for_an_earlier_state(office: Office, admin: str) -> None:
    client, ca = office.dps(admin).dps_certificate, a_ca("Changing", now=NOW)
    first = client.create_or_update(*AT, "changing", wanted(ca))
    client.generate_verification_code("changing", *AT, etag=first.etag, match_condition=SAME)
    stale = {"etag": first.etag, "match_condition": SAME}
    proof = dps_models.VerificationCodeRequest(certificate=proof_of(ca, "any").pem())
    changes: tuple[Callable[[], object], ...] = (
        lambda: client.generate_verification_code("changing", *AT, **stale),
        lambda: client.verify_certificate("changing", *AT, proof, **stale),
        lambda: client.delete(*AT, "changing", **stale),
        lambda: client.create_or_update(*AT, "changing", wanted(ca, is_verified=True), **stale),
    )
    for change in changes:
        with pytest.raises(ResourceModifiedError, match="PreconditionFailed"):
            change()
    with pytest.raises(ResourceExistsError, match="PreconditionFailed"):
        client.create_or_update(*AT, "changing", wanted(ca), etag="*", match_condition=MatchConditions.IfMissing)
    assert not client.get("changing", *AT).properties.is_verified


def test_a_change_of_a_hubs_certificate_is_for_the_state_it_names(office: Office, admin: str) -> None:
    client, ca = office.hubs(admin).certificates, a_ca("Changing Hub", now=NOW)
    body = {"properties": {"certificate": ca.certificate.pem()}}
    first = client.create_or_update(*AT, "changing", body)
    second = client.generate_verification_code(*AT, "changing", first.etag)
    changes: tuple[Callable[[], object], ...] = (
        lambda: client.delete(*AT, "changing", first.etag),
        lambda: client.generate_verification_code(*AT, "changing", first.etag),
        lambda: client.create_or_update(*AT, "changing", body, if_match=first.etag),
    )
    for change in changes:
        with pytest.raises(HttpResponseError) as caught:
            change()
        assert caught.value.status_code == 412
    client.delete(*AT, "changing", second.etag)


def test_a_name_keeps_its_certificate(office: Office, admin: str) -> None:
    client = office.dps(admin).dps_certificate
    client.create_or_update(*AT, "kept", wanted(a_ca("Kept", now=NOW)))
    with pytest.raises(ResourceExistsError, match="kept is in use"):
        client.create_or_update(*AT, "kept", wanted(a_ca("Other", now=NOW)))


@pytest.mark.parametrize(
    "text", ["none of ours", "bmt_000000000000_" + "A" * 43, "SharedAccessSignature sr=a&sig=b&se=1"]
)
def test_a_stranger_sees_nothing(office: Office, text: str) -> None:
    for ask in (
        lambda: office.dps(text).dps_certificate.list(*AT),
        lambda: list(office.dps(text).iot_dps_resource.list_by_subscription()),
        lambda: office.hubs(text).certificates.list_by_iot_hub(*AT),
        lambda: office.hubs(text).iot_hub_resource.check_name_availability({"name": "birthmark"}),
    ):
        with pytest.raises(ClientAuthenticationError, match="AuthenticationFailed"):
            ask()


def test_who_may_look_puts_nothing_and_sees_no_key(office: Office) -> None:
    reader = office.token("mgmt-reader", "viewer")
    client = office.dps(reader)
    assert client.iot_dps_resource.get(AT[1], AT[0]).name == "birthmark"
    assert client.dps_certificate.list(*AT).value is not None
    hub = office.hubs(reader)
    body = {"properties": {"certificate": a_ca("No", now=NOW).certificate.pem()}}
    for ask in (
        lambda: client.dps_certificate.create_or_update(*AT, "no", wanted(a_ca("No", now=NOW))),
        lambda: client.dps_certificate.generate_verification_code("no", *AT, etag="a", match_condition=SAME),
        lambda: client.dps_certificate.delete(*AT, "no", etag="a", match_condition=SAME),
        lambda: list(client.iot_dps_resource.list_keys(AT[1], AT[0])),
        lambda: hub.certificates.create_or_update(*AT, "no", body),
        lambda: hub.iot_hub_resource.get_keys_for_key_name(*AT, "iothubowner"),
    ):
        with pytest.raises(HttpResponseError) as caught:
            ask()
        assert status_of(caught.value) == (403, "AuthorizationFailed")


def test_a_role_at_one_hub_is_none_at_another(office: Office, admin: str) -> None:
    office.server.run("hub", "create", "mgmt-second", "--host", "mgmt-second.localhost")
    second = ("factory", "mgmt-second")
    keeper = office.hubs(office.token("mgmt-keeper", "security-officer", "hub/mgmt-second"))
    ca = a_ca("Second", now=NOW)
    body = {"properties": {"certificate": ca.certificate.pem()}}
    made = keeper.certificates.create_or_update(*second, "second", body)
    assert [one.name for one in keeper.iot_hub_resource.list_by_subscription()] == ["mgmt-second"]
    for place in (AT, ("factory", "mgmt-none")):  # also of what is not there
        with pytest.raises(HttpResponseError, match="AuthorizationFailed"):
            keeper.certificates.list_by_iot_hub(*place)
    assert "second" not in {one.name for one in office.hubs(admin).certificates.list_by_iot_hub(*AT).value}
    with pytest.raises(ResourceNotFoundError):
        office.hubs(admin).certificates.generate_verification_code(*AT, "second", made.etag)
    office.server.run("hub", "delete", "mgmt-second", "--yes")


def test_a_token_that_was_taken_back_opens_nothing(office: Office) -> None:
    token = office.token("mgmt-gone", "admin")
    client = office.dps(token).dps_certificate
    client.list(*AT)
    office.server.run("user", "rm", "mgmt-gone", "--yes")
    with pytest.raises(ClientAuthenticationError):
        client.list(*AT)


def test_a_provisioning_service_is_shown_as_it_is(office: Office, admin: str) -> None:
    client = office.dps(admin).iot_dps_resource
    told = office.server.endpoints["dps"]
    (known,) = [row for row in office.server.rows("dps", "ls") if row["name"] == "birthmark"]
    shown = client.get(AT[1], AT[0])
    assert shown.properties.id_scope == told["id_scope"] == known["id_scope"]
    assert [hub.name for hub in shown.properties.iot_hubs] == known["linked_hubs"]
    assert {one.name for one in client.list_by_resource_group("factory")} >= {"birthmark"}
    (listed,) = [one for one in client.list_by_subscription() if one.name == "birthmark"]
    assert "/resourceGroups/birthmark/" in listed.id
    assert [sku.name for sku in client.list_valid_skus(AT[1], AT[0])] == ["S1"]
    taken = client.check_provisioning_service_name_availability({"name": "birthmark"})
    assert (taken.name_available, taken.reason) == (False, "AlreadyExists")
    assert client.check_provisioning_service_name_availability({"name": "mgmt-free"}).name_available
    with pytest.raises(ResourceNotFoundError):
        client.get("mgmt-free", AT[0])


def test_the_keys_of_a_provisioning_service_are_those_it_has(office: Office, admin: str) -> None:
    client = office.dps(admin).iot_dps_resource
    (rule,) = client.list_keys(AT[1], AT[0])
    known = json.loads(office.server.run("dps", "key", "--json").stdout)
    assert (rule.key_name, rule.primary_key) == ("provisioningserviceowner", known["primary_key"])
    one = client.list_keys_for_key_name(AT[1], "provisioningserviceowner", AT[0])
    assert (one.secondary_key, one.rights) == (known["secondary_key"], "ServiceConfig, DeviceConnect, EnrollmentWrite")
    shown = [row for row in office.server.rows("server", "audit", "ls") if row["action"] == "dps.key_show"]
    assert "user:mgmt-admin" in {row["actor"] for row in shown}


def test_a_hub_its_keys_and_its_devices_are_shown_as_they_are(office: Office, admin: str) -> None:
    client = office.hubs(admin).iot_hub_resource
    shown = client.get(*AT)
    assert (shown.name, shown.properties.state) == ("birthmark", "Active")
    assert {one.name for one in client.list_by_resource_group("factory")} >= {"birthmark"}
    assert {one.name for one in client.list_by_subscription()} >= {"birthmark"}
    rules = {rule.key_name: rule for rule in client.list_keys(*AT)}
    assert set(rules) == {"iothubowner", "service", "device", "registryRead", "registryReadWrite"}
    known = json.loads(office.server.run("hub", "key", "--policy", "service", "--json").stdout)
    assert client.get_keys_for_key_name(*AT, "service").primary_key == known["primary_key"]
    with pytest.raises(ResourceNotFoundError):
        client.get_keys_for_key_name(*AT, "none")
    office.server.run("hub", "device", "create", "mgmt-counted")
    before = client.get_stats(*AT)
    office.server.run("hub", "device", "disable", "mgmt-counted")
    after = client.get_stats(*AT)
    assert (after.total_device_count, after.disabled_device_count) == (
        before.total_device_count,
        before.disabled_device_count + 1,
    )
    assert not client.check_name_availability({"name": "birthmark"}).name_available
    assert [one.sku.name for one in client.get_valid_skus(*AT)] == ["S1"]


def test_consumer_groups_are_put_read_listed_and_deleted(office: Office, admin: str) -> None:
    hubs = office.hubs(admin).iot_hub_resource
    events = hubs.get(*AT).properties.event_hub_endpoints["events"]
    assert (events.path, events.partition_count, events.partition_ids) == ("birthmark", 4, ["0", "1", "2", "3"])
    assert events.endpoint == f"sb://{office.server.address}/"
    made = hubs.create_event_hub_consumer_group(*AT, "events", "analytics", {"properties": {"name": "analytics"}})
    assert hubs.get_event_hub_consumer_group(*AT, "events", "ANALYTICS").name == made.name == "analytics"
    assert [one.name for one in hubs.list_event_hub_consumer_groups(*AT, "events")] == ["$Default", "analytics"]
    hubs.delete_event_hub_consumer_group(*AT, "events", "analytics")
    with pytest.raises(ResourceNotFoundError):
        hubs.get_event_hub_consumer_group(*AT, "events", "analytics")
    with pytest.raises(HttpResponseError):
        hubs.delete_event_hub_consumer_group(*AT, "events", "$Default")


def test_the_quotas_of_a_hub_are_those_of_its_tier(office: Office, admin: str) -> None:
    hubs = office.hubs(admin).iot_hub_resource
    assert [one.name for one in hubs.get_quota_metrics(*AT)] == ["TotalDeviceCount"]
    office.server.run("hub", "tier", "birthmark", "S1", "--units", "2")
    quotas = {one.name: (one.current_value, one.max_value) for one in hubs.get_quota_metrics(*AT)}
    office.server.run("hub", "tier", "birthmark", "none")
    assert quotas["TotalMessages"] == (0, 800_000)
    assert quotas["TotalDeviceCount"][1] > quotas["TotalDeviceCount"][0]


def test_a_hub_gets_routes_by_reading_it_and_putting_it_back(office: Office, admin: str) -> None:
    hubs = office.hubs(admin).iot_hub_resource
    hub = hubs.get(*AT)
    routing = hub.properties.routing
    assert routing.routes == []
    assert routing.fallback_route.endpoint_names == ["events"]
    office.server.run("hub", "endpoint", "create", "hook", "--webhook", "https://hooks.example.com/in")
    try:
        hub = hubs.get(*AT)
        routing = hub.properties.routing
        routing.endpoints.storage_containers = [
            hub_models.RoutingStorageContainerProperties(name="archive", container_name="archive", encoding="JSON")
        ]
        routing.endpoints.event_hubs = [hub_models.RoutingEventHubProperties(name="live")]
        routing.routes = [
            hub_models.RouteProperties(
                name="hot",
                source="DeviceMessages",
                condition="level = 'hot'",
                endpoint_names=["live", "hook"],
                is_enabled=True,
            )
        ]
        routing.enrichments = [hub_models.EnrichmentProperties(key="hub", value="$iothubname", endpoint_names=["live"])]
        made = hubs.begin_create_or_update(*AT, hub, if_match=hub.etag).result()
        assert [one.name for one in made.properties.routing.routes] == ["hot"]
        kinds = {one["name"]: one["kind"] for one in office.server.rows("hub", "endpoint", "ls")}
        assert kinds == {"hook": "webhook", "archive": "file", "live": "stream"}
        with pytest.raises(HttpResponseError) as caught:
            hubs.begin_create_or_update(*AT, hub, if_match=hub.etag)
        assert status_of(caught.value) == (412, "PreconditionFailed")
        message = {"message": {"body": "{}", "appProperties": {"level": "hot"}}}
        found = hubs.test_all_routes(AT[1], AT[0], {"routingSource": "DeviceMessages", **message}).routes
        assert [one.properties.name for one in found] == ["hot"]
        found = hubs.test_all_routes(AT[1], AT[0], {"message": {"body": "{}"}}).routes
        assert [one.properties.name for one in found] == ["$fallback"]
        route = {"name": "new", "source": "DeviceMessages", "endpointNames": ["live"], "isEnabled": True}
        told = hubs.test_route(AT[1], AT[0], {**message, "route": {**route, "condition": "level = 'cold'"}})
        assert told.result == "false"
        told = hubs.test_route(AT[1], AT[0], {**message, "route": {**route, "condition": "level ="}})
        assert told.result == "undefined"
        assert told.details.compilation_errors[0].severity == "error"
        health = {one.endpoint_id: one.health_status for one in hubs.get_endpoint_health(*AT)}
        assert health == dict.fromkeys(("events", "hook", "archive", "live"), "healthy")
    finally:
        hub = hubs.get(*AT)
        hub.properties.routing = hub_models.RoutingProperties()
        hubs.begin_create_or_update(*AT, hub)
        office.server.run("hub", "endpoint", "rm", "hook", "--yes")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"location": "westeurope"}, "location"),
        ({"tags": {"a": "b"}}, "tags.a"),
        ({"properties": {"publicNetworkAccess": "Disabled"}}, "publicNetworkAccess"),
        ({"properties": {"routing": {"endpoints": {"serviceBusQueues": [{"name": "q"}]}}}}, "serviceBusQueues"),
        (
            {"properties": {"routing": {"endpoints": {"eventHubs": [{"name": "e", "connectionString": "x"}]}}}},
            "connectionString",
        ),
        (
            {"properties": {"routing": {"endpoints": {"storageContainers": [{"name": "s", "containerName": "abc"}]}}}},
            "encoding",
        ),
    ],
)
def test_what_has_no_place_here_is_refused_by_its_name(
    office: Office, admin: str, change: dict[str, Any], named: str
) -> None:
    hubs = office.hubs(admin).iot_hub_resource
    with pytest.raises(HttpResponseError, match=named) as caught:
        hubs.begin_create_or_update(*AT, {"location": "local", "sku": {"name": "S1"}, **change})
    assert caught.value.status_code == 400


def test_who_may_look_gives_a_hub_no_routes(office: Office) -> None:
    hubs = office.hubs(office.token("mgmt-looks-at-routes", "viewer")).iot_hub_resource
    with pytest.raises(HttpResponseError) as caught:
        hubs.begin_create_or_update(*AT, hubs.get(*AT))
    assert status_of(caught.value) == (403, "AuthorizationFailed")


def test_what_is_not_served_is_refused_by_its_name(office: Office, admin: str) -> None:
    hubs, dps = office.hubs(admin).iot_hub_resource, office.dps(admin).iot_dps_resource
    for ask in (
        lambda: hubs.begin_create_or_update(AT[0], "another", {"location": "local", "sku": {"name": "S1"}}),
        lambda: hubs.begin_delete(*AT),
        lambda: list(hubs.list_jobs(*AT)),
        lambda: dps.begin_delete(AT[1], AT[0]),
        lambda: dps.list_private_link_resources(AT[0], AT[1]),
    ):
        with pytest.raises(HttpResponseError) as caught:
            ask()
        assert status_of(caught.value) == (501, "NotImplemented")
        answer: Any = caught.value.response
    assert office.server.why(answer.headers["x-ms-request-id"])["code"] == "management.operation_not_served"


def test_our_own_commands_find_a_services_key_by_the_same_way(
    office: Office, admin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", office.server.endpoints["trust_bundle"])
    text, scope = connect(AzureAccount("birthmark", "factory", "any", management_url=office.url), SignedIn(admin))
    assert scope == office.server.endpoints["dps"]["id_scope"]
    assert text == office.server.endpoints["dps"]["service_connection_string"]
