"""What a request of the service carries is kept or refused by its name, at DPS and at a hub.

The members come from the models of Azure's own SDKs. Each is in one of the tables below, and what its table says is
tried: kept and read back, told by the service alone, or refused with its name. One that is in none of them fails here.
"""

import base64
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import azure.iot.hub.protocol.models as of_hub
import provisioningserviceclient.protocol.models as of_dps
import pytest

from birthmark.testing.cloud import Cloud
from support.azure.credentials import Operator
from support.chips.tpm_vectors import RSA_EK, RSA_SRK
from support.pki.pki_builders import a_ca, a_device
from support.server.servers import RunningServer

pytestmark = pytest.mark.system
NUMBERS = count(1)
VERSION = "2021-10-01"
LEAVES = frozenset({"TwinCollection", "X509CertificateInfo", "object", "DeviceRegistrationState"})
Json = dict[str, Any]


def leaves(models: Any, name: str, place: str = "") -> Iterator[str]:
    """Yield the paths of a model's members."""
    for member in getattr(models, name)._attribute_map.values():
        path, kind = place + member["key"], member["type"]
        if kind in LEAVES or not hasattr(getattr(models, kind, None), "_attribute_map"):
            yield path
        else:
            yield from leaves(models, kind, f"{path}.")


def put(document: Json, path: str, value: Any) -> Json:
    """Return the document with a value at a path."""
    first, _, rest = path.partition(".")
    return document | {first: put(document.get(first) or {}, rest, value) if rest else value}


def at(document: Any, path: str) -> Any:
    for name in path.split("."):
        document = (document or {}).get(name)
    return document


Service = Callable[..., tuple[int, Any]]
"""One of the services, asked in plain JSON."""


@pytest.fixture(scope="module")
def dps(birthmark_server: Cloud) -> Service:
    return Operator(birthmark_server, VERSION).dps


@pytest.fixture(scope="module")
def hub(birthmark_server: Cloud) -> Service:
    return Operator(birthmark_server, VERSION).hub


# ---- enrollments

CERTIFICATE, OTHER = a_device().certificate.pem(), a_device(common_name="other").certificate.pem()
CA, OTHER_CA = a_ca("Kept").certificate.pem(), a_ca("Kept too").certificate.pem()
KEY, OTHER_KEY = base64.b64encode(b"k" * 32).decode(), base64.b64encode(b"o" * 32).decode()
EK, SRK = base64.b64encode(RSA_EK).decode(), base64.b64encode(RSA_SRK).decode()
BY_X509: Json = {"type": "x509", "x509": {"clientCertificates": {"primary": {"certificate": CERTIFICATE}}}}
BY_CA: Json = {"type": "x509", "x509": {"signingCertificates": {"primary": {"certificate": CA}}}}
BY_KEY: Json = {"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY, "secondaryKey": OTHER_KEY}}
BY_TPM: Json = {"type": "tpm", "tpm": {"endorsementKey": EK, "storageRootKey": SRK}}
INFO = {"subjectName": "CN=another"} | dict.fromkeys(("sha1Thumbprint", "sha256Thumbprint"), "00" * 20)
INFO |= {"issuerName": "CN=x", "notBeforeUtc": "2020-01-01T00:00:00Z", "notAfterUtc": "2021-01-01T00:00:00Z"}
INFO_OF: Json = INFO | {"serialNumber": "1", "version": 3}
WHEN = "2001-01-01T00:00:00Z"
# By path: what is sent, and in place of the usual attestation, another.
KEPT: dict[str, tuple[Any, Json | None]] = {
    "capabilities.iotEdge": (True, None),
    "deviceId": ("kept-as", None),
    "attestation.type": ("symmetricKey", BY_KEY),
    "attestation.symmetricKey.primaryKey": (OTHER_KEY, BY_KEY),
    "attestation.symmetricKey.secondaryKey": (KEY, BY_KEY),
    "attestation.tpm.endorsementKey": (EK, BY_TPM),
    "attestation.tpm.storageRootKey": (SRK, BY_TPM),
    "attestation.x509.clientCertificates.primary.certificate": (OTHER, BY_X509),
    "attestation.x509.clientCertificates.secondary.certificate": (OTHER, BY_X509),
    "attestation.x509.signingCertificates.primary.certificate": (OTHER_CA, BY_CA),
    "attestation.x509.signingCertificates.secondary.certificate": (OTHER_CA, BY_CA),
    "attestation.x509.caReferences.primary": ("kept-ca", {"type": "x509"}),
    "attestation.x509.caReferences.secondary": ("kept-ca", {"type": "x509"}),
    "iotHubHostName": ("hub.example", None),
    "iotHubs": (["a.example", "b.example"], None),
    "initialTwin.tags": ({"site": "7"}, None),
    "initialTwin.properties.desired": ({"interval": 5}, None),
    "provisioningStatus": ("disabled", None),
    "reprovisionPolicy.updateHubAssignment": (False, None),
    "reprovisionPolicy.migrateDeviceData": (False, None),
    "allocationPolicy": ("static", None),
}
TOLD: dict[str, Any] = {
    "registrationState": {"registrationId": "x", "status": "assigned", "assignedHub": "nowhere.example"},
    "etag": '"00"',
    "createdDateTimeUtc": WHEN,
    "lastUpdatedDateTimeUtc": WHEN,
    "attestation.x509.clientCertificates.primary.info": INFO_OF,
    "attestation.x509.signingCertificates.primary.info": INFO_OF,
}
# A certificate's description without the certificate, which both kinds refuse by its name.
REFUSED: dict[str, tuple[Any, str]] = {
    "attestation.x509.clientCertificates.secondary.info": (INFO_OF, "only its info"),
    "attestation.x509.signingCertificates.secondary.info": (INFO_OF, "only its info"),
    "customAllocationDefinition.webhookUrl": ("https://x.example", "customAllocationDefinition"),
    "customAllocationDefinition.apiVersion": ("2019-03-31", "customAllocationDefinition"),
}
OF_ONE: dict[str, tuple[Any, str]] = REFUSED | {
    "attestation.x509.signingCertificates.primary.certificate": (CA, "signingCertificates"),
    "attestation.x509.signingCertificates.primary.info": (INFO_OF, "signingCertificates"),
    "attestation.x509.signingCertificates.secondary.certificate": (CA, "signingCertificates"),
    "attestation.x509.signingCertificates.secondary.info": (INFO_OF, "signingCertificates"),
    "attestation.x509.caReferences.primary": ("kept-ca", "caReferences"),
    "attestation.x509.caReferences.secondary": ("kept-ca", "caReferences"),
}
OF_GROUP: dict[str, tuple[Any, str]] = REFUSED | {
    "attestation.tpm.endorsementKey": (EK, "attestation.tpm"),
    "attestation.tpm.storageRootKey": (SRK, "attestation.tpm"),
    "attestation.x509.clientCertificates.primary.certificate": (CERTIFICATE, "clientCertificates"),
    "attestation.x509.clientCertificates.primary.info": (INFO_OF, "clientCertificates"),
    "attestation.x509.clientCertificates.secondary.certificate": (CERTIFICATE, "clientCertificates"),
    "attestation.x509.clientCertificates.secondary.info": (INFO_OF, "clientCertificates"),
}


def looked_at(dps: Service, where: str, path: str) -> Any:
    read = dps("GET", where)[1]
    if path.startswith("attestation.symmetricKey"):
        read["attestation"] = dps("POST", where + "/attestationmechanism")[1]
    return at(read, path)


@pytest.fixture(scope="module")
def a_ca_on_record(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("kept") / "ca.pem"
    file.write_text(a_ca("Kept by name").certificate.pem())
    server.run("dps", "ca", "create", "kept-ca", str(file), "--verified")


@pytest.mark.usefixtures("a_ca_on_record")
@pytest.mark.parametrize(
    ("model", "path"),
    [(name, path) for name in ("IndividualEnrollment", "EnrollmentGroup") for path in leaves(of_dps, name)],
)
def test_each_member_of_an_enrollment_is_kept_or_refused_by_its_name(dps: Service, model: str, path: str) -> None:
    is_group = model == "EnrollmentGroup"
    name, place, usual = f"kept-{next(NUMBERS)}", "enrollmentGroups" if is_group else "enrollments", BY_X509
    id_name, refused = ("enrollmentGroupId", OF_GROUP) if is_group else ("registrationId", OF_ONE)
    usual = BY_CA if is_group else BY_X509
    where, document = f"/{place}/{name}", {id_name: name, "attestation": usual}
    if path == id_name:
        assert dps("PUT", where, document)[1][id_name] == name
        status, told = dps("PUT", where, document | {id_name: "another"})
        assert (status, "another" in told["message"]) == (400, True)
    elif path in refused:
        value, words = refused[path]
        status, told = dps("PUT", where, put(document, path, value))
        assert (status, words in told["message"]) == (400, True), told
        assert dps("GET", where)[0] == 404
    elif path in TOLD:
        assert dps("PUT", where, put(document, path, TOLD[path]))[0] == 200
        assert looked_at(dps, where, path) != TOLD[path]
    else:
        value, attestation = KEPT[path]
        document |= {"attestation": attestation or usual}
        if path == "attestation.x509.caReferences.secondary":
            document = put(document, "attestation.x509.caReferences.primary", "kept-ca")
        if path == "iotHubs":
            document |= {"allocationPolicy": "hashed"}
        assert dps("PUT", where, put(document, path, value))[0] == 200
        assert looked_at(dps, where, path) == value
        problems = {"mode": "create", place: [put(document, path, value) | {id_name: name + "-b"}]}
        assert dps("POST", f"/{place}", problems)[1] == {"isSuccessful": True, "errors": []}
        assert looked_at(dps, where + "-b", path) == value


@pytest.mark.parametrize("place", ["enrollments", "enrollmentGroups"])
def test_what_no_model_has_is_refused_by_its_name_also_in_bulk(dps: Service, place: str) -> None:
    is_group = place == "enrollmentGroups"
    name = f"kept-{next(NUMBERS)}"
    ids = {"enrollmentGroupId" if is_group else "registrationId": name}
    strange: Json = ids | {"attestation": BY_CA if is_group else BY_X509, "shelfLife": 3}
    assert "shelfLife" in dps("PUT", f"/{place}/{name}", strange)[1]["message"]
    assert "shelfLife" in dps("POST", f"/{place}", {"mode": "create", place: [strange]})[1]["message"]
    assert "shelfLife" in dps("POST", f"/{place}", {"mode": "create", place: [], "shelfLife": 3})[1]["message"]
    assert dps("GET", f"/{place}/{name}")[0] == 404
    twin = ids | {"attestation": BY_CA if is_group else BY_X509, "initialTwin": {"properties": {"reported": {"a": 1}}}}
    assert "initialTwin.properties.reported" in dps("PUT", f"/{place}/{name}", twin)[1]["message"]


def test_each_member_of_a_bulk_operation_is_heeded_or_refused(dps: Service) -> None:
    assert set(leaves(of_dps, "BulkEnrollmentOperation")) == {"enrollments", "mode"}
    other = {
        "mode": "create",
        "enrollments": [],
        "enrollmentGroups": [{"enrollmentGroupId": "x", "attestation": BY_CA}],
    }
    assert "enrollmentGroups" in dps("POST", "/enrollments", other)[1]["message"]
    assert dps("POST", "/enrollments", {"mode": "something", "enrollments": []})[0] == 400


@pytest.mark.parametrize("place", ["enrollments", "enrollmentGroups"])
def test_a_query_is_answered_as_it_is_meant_or_refused(dps: Service, place: str) -> None:
    assert set(leaves(of_dps, "QuerySpecification")) == {"query"}
    for text in (f"SELECT * FROM {place}", f"select * from {place.lower()};", "SELECT *"):
        assert dps("POST", f"/{place}/query", {"query": text})[0] == 200
    disabled = f"SELECT * FROM {place} WHERE provisioningStatus='disabled'"
    status, found = dps("POST", f"/{place}/query", {"query": disabled})
    assert (status, {one["provisioningStatus"] for one in found} - {"disabled"}) == (200, set())
    for text in (
        f"SELECT etag FROM {place}",
        "SELECT * FROM devices",
        "all of them",
        f"SELECT * FROM {place} WHERE a=1",
    ):
        status, told = dps("POST", f"/{place}/query", {"query": text})
        assert (status, text in told["message"]) == (400, True)


# ---- the hub's registry, twins and methods

THUMBPRINT, OTHER_THUMBPRINT = "AB" * 32, "CD" * 20
SAS: Json = {"authentication": {"type": "sas"}}
SELF_SIGNED: Json = {
    "authentication": {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": THUMBPRINT}},
}
DEVICE_KEPT: dict[str, tuple[Any, Json]] = {
    "status": ("disabled", SAS),
    "statusReason": ("sold", SAS),
    "authentication.symmetricKey.primaryKey": (KEY, SAS),
    "authentication.symmetricKey.secondaryKey": (OTHER_KEY, SAS),
    "authentication.x509Thumbprint.primaryThumbprint": (THUMBPRINT, SELF_SIGNED),
    "authentication.x509Thumbprint.secondaryThumbprint": (OTHER_THUMBPRINT, SELF_SIGNED),
    "authentication.type": ("selfSigned", SELF_SIGNED),
    "capabilities.iotEdge": (True, SAS),
}
DEVICE_TOLD: Json = {
    "generationId": "7",
    "etag": "00",
    "connectionState": "Connected",
    "connectionStateUpdatedTime": WHEN,
    "statusUpdatedTime": WHEN,
    "lastActivityTime": WHEN,
    "cloudToDeviceMessageCount": 7,
}
GATEWAY = "ms-azure-iot-edge://gateway-1"
DEVICE_KEPT |= {"deviceScope": (GATEWAY, SAS), "parentScopes": ([GATEWAY], SAS)}


@pytest.mark.parametrize("path", list(leaves(of_hub, "Device")))
def test_each_member_of_a_device_is_kept_or_refused_by_its_name(hub: Service, path: str) -> None:
    name = f"kept-{next(NUMBERS)}"
    where = f"/devices/{name}"
    if path == "deviceId":
        assert hub("PUT", where, SAS | {"deviceId": name})[1]["deviceId"] == name
        assert "deviceId" in hub("PUT", where, SAS | {"deviceId": "another"}, If_Match="*")[1]["Message"]
    elif path in DEVICE_TOLD:
        assert hub("PUT", where, put(SAS, path, DEVICE_TOLD[path]))[0] == 200
        assert at(hub("GET", where)[1], path) != DEVICE_TOLD[path]
    else:
        value, base = DEVICE_KEPT[path]
        assert hub("PUT", where, put(base, path, value))[0] == 200
        assert at(hub("GET", where)[1], path) == value


@pytest.mark.parametrize("path", list(leaves(of_hub, "Module")))
def test_each_member_of_a_module_is_kept_or_refused_by_its_name(hub: Service, path: str) -> None:
    name = f"kept-{next(NUMBERS)}"
    assert hub("PUT", f"/devices/{name}", SAS)[0] == 200
    where = f"/devices/{name}/modules/camera"
    if path in {"deviceId", "moduleId"}:
        meant = {"deviceId": name, "moduleId": "camera"}[path]
        assert hub("PUT", where, SAS | {path: meant})[1][path] == meant
        assert hub("PUT", where, SAS | {path: "another"}, If_Match="*")[0] == 400
    elif path in DEVICE_TOLD:
        assert hub("PUT", where, put(SAS, path, DEVICE_TOLD[path]))[0] == 200
        assert at(hub("GET", where)[1], path) != DEVICE_TOLD[path]
    else:
        value, base = DEVICE_KEPT.get(path, ("you", SAS))
        assert hub("PUT", where, put(base, path, value))[0] == 200
        assert at(hub("GET", where)[1], path) == value
        assert hub("PUT", where, hub("GET", where)[1], If_Match="*")[0] == 200


@pytest.mark.parametrize("path", list(leaves(of_hub, "ExportImportDevice")))
def test_each_member_of_a_bulk_item_is_kept_or_refused_by_its_name(hub: Service, path: str) -> None:
    name, twin = f"kept-{next(NUMBERS)}", {"tags": {"a": 1}, "properties.desired": {"b": 2}}
    if path == "properties.reported":
        status, told = hub("POST", "/devices", [put(SAS | {"id": name}, path, {"c": 3})])
        assert (status, path in told["Message"]) == (400, True)
    elif path in twin:
        assert hub("POST", "/devices", [put(SAS | {"id": name}, path, twin[path])])[0] == 200
        assert twin[path].items() <= at(hub("GET", f"/twins/{name}")[1], path).items()
    elif path in {"eTag", "twinETag", "importMode"}:
        assert hub("PUT", f"/devices/{name}", SAS)[0] == 200
        mode = "updateTwinIfMatchETag" if path == "twinETag" else "updateIfMatchETag"
        of_another = SAS | {"id": name, "importMode": mode, "eTag": "AAAA", "twinETag": "AAAA"}
        assert [one["errorCode"] for one in hub("POST", "/devices", [of_another])[1]["errors"]] == [
            "PreconditionFailed"
        ]
    elif path in {"id", "moduleId"}:
        assert hub("POST", "/devices", [SAS | {"id": name}])[0] == 200
        assert hub("POST", "/devices", [SAS | {"id": name, "moduleId": "camera"}])[0] == 200
        assert hub("GET", f"/devices/{name}/modules/camera")[1]["deviceId"] == name
    else:
        value, base = DEVICE_KEPT[path]
        assert hub("POST", "/devices", [put(base | {"id": name}, path, value)])[0] == 200
        assert at(hub("GET", f"/devices/{name}")[1], path) == value


def test_what_no_bulk_item_has_is_refused_by_its_name(hub: Service) -> None:
    status, told = hub("POST", "/devices", [SAS | {"id": "kept-nobody", "colour": "red"}])
    assert (status, "colour" in told["Message"], hub("GET", "/devices/kept-nobody")[0]) == (400, True, 404)


def test_a_gateway_has_a_scope_that_those_behind_it_name(hub: Service) -> None:
    edge = hub("PUT", "/devices/kept-gateway", SAS | {"capabilities": {"iotEdge": True}})[1]
    assert edge["deviceScope"] == f"ms-azure-iot-edge://kept-gateway-{edge['generationId']}"
    leaf = hub("PUT", "/devices/kept-leaf", SAS | {"deviceScope": edge["deviceScope"]})[1]
    assert (leaf["deviceScope"], leaf["parentScopes"]) == (edge["deviceScope"], [edge["deviceScope"]])
    nested = {"capabilities": {"iotEdge": True}, "parentScopes": [edge["deviceScope"]]}
    below = hub("PUT", "/devices/kept-below", SAS | nested)[1]
    assert (below["parentScopes"], below["deviceScope"] != edge["deviceScope"]) == ([edge["deviceScope"]], True)
    for wrong in ({"deviceScope": "elsewhere"}, {"parentScopes": [GATEWAY, GATEWAY]}):
        assert hub("PUT", "/devices/kept-wrong", SAS | wrong)[0] == 400


def test_a_device_that_is_read_can_be_written_back(hub: Service) -> None:
    for number, base in enumerate((SAS, SELF_SIGNED)):
        where = f"/devices/back-{number}"
        assert hub("PUT", where, base)[0] == 200
        assert hub("PUT", where, hub("GET", where)[1], If_Match="*")[0] == 200


@pytest.mark.parametrize("authentication", [
    {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": THUMBPRINT}, "symmetricKey": {"primaryKey": KEY}},
    {"type": "sas", "x509Thumbprint": {"primaryThumbprint": THUMBPRINT}},
    {"x509Thumbprint": {"primaryThumbprint": THUMBPRINT}},
    {"type": "sas", "shelfLife": 3},
    {"type": "certificateAuthority", "x509Thumbprint": {"primaryThumbprint": THUMBPRINT}},
    {"type": "certificateAuthority", "symmetricKey": {"primaryKey": KEY}},
])  # fmt: skip
def test_a_second_kind_of_authentication_is_refused_by_its_name(hub: Service, authentication: Json) -> None:
    status, told = hub("PUT", f"/devices/kept-{next(NUMBERS)}", {"authentication": authentication})
    named = next(name for name in ("Thumbprints", "SymmetricKey", "shelfLife") if name in told["Message"])
    assert (status, bool(named)) == (400, True)


TWIN_KEPT: Json = {"tags": {"site": "7"}, "properties.desired": {"interval": 5}}
TWIN_TOLD: Json = {
    "etag": "00",
    "version": 99,
    "deviceEtag": "00",
    "statusUpdateTime": WHEN,
    "connectionState": "Connected",
    "lastActivityTime": WHEN,
    "cloudToDeviceMessageCount": 7,
}
TWIN_REFUSED: Json = {
    "deviceId": "another",
    "moduleId": "m",
    "properties.reported": {"interval": 5},
    "status": "disabled",
    "statusReason": "sold",
    "authenticationType": "selfSigned",
    "x509Thumbprint.primaryThumbprint": THUMBPRINT,
    "x509Thumbprint.secondaryThumbprint": THUMBPRINT,
    "capabilities.iotEdge": True,
    "deviceScope": GATEWAY,
    "parentScopes": [GATEWAY],
}


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize("path", list(leaves(of_hub, "Twin")))
def test_each_member_of_a_twin_is_kept_or_refused_by_its_name(hub: Service, path: str, method: str) -> None:
    name = f"kept-{next(NUMBERS)}"
    where = f"/twins/{name}"
    hub("PUT", f"/devices/{name}", SAS)
    if path in TWIN_REFUSED:
        before = hub("GET", where)[1]
        status, told = hub(method, where, put({}, path, TWIN_REFUSED[path]))
        assert (status, path.partition(".")[0] in told["Message"]) == (400, True)
        assert hub("GET", where)[1] == before
    elif path in TWIN_TOLD:
        assert hub(method, where, put({}, path, TWIN_TOLD[path]))[0] == 200
        assert at(hub("GET", where)[1], path) != TWIN_TOLD[path]
    else:
        assert hub(method, where, put({}, path, TWIN_KEPT[path]))[0] == 200
        assert at(hub("GET", where)[1], path).items() >= TWIN_KEPT[path].items()


def test_a_twin_that_is_read_can_be_written_back(hub: Service) -> None:
    hub("PUT", "/devices/back-twin", SELF_SIGNED | {"statusReason": "new"})
    hub("PATCH", "/twins/back-twin", {"tags": {"site": "7"}})
    assert hub("PUT", "/twins/back-twin", hub("GET", "/twins/back-twin")[1])[0] == 200


# What of a call is heeded is a device's business; see `test_features` for the name, the payload and the times.
CALLED: dict[str, Callable[[Json], Json]] = {
    "methodName": lambda call: call | {"methodName": "no/name"},
    "payload": lambda call: call | {"payload": "x" * 200_000},
    "responseTimeoutInSeconds": lambda call: call | {"responseTimeoutInSeconds": 100_000},
    "connectTimeoutInSeconds": lambda call: call | {"connectTimeoutInSeconds": 100_000},
}


@pytest.mark.parametrize("path", list(leaves(of_hub, "CloudToDeviceMethod")))
def test_each_member_of_a_method_call_is_heeded(hub: Service, path: str) -> None:
    hub("PUT", "/devices/called", SAS)
    call = {"methodName": "blink", "payload": {}, "responseTimeoutInSeconds": 5, "connectTimeoutInSeconds": 0}
    assert hub("POST", "/twins/called/methods", call)[0] == 404  # not connected
    assert hub("POST", "/twins/called/methods", CALLED[path](call))[0] in {400, 413}


def test_what_no_call_has_is_refused_by_its_name(hub: Service) -> None:
    status, told = hub("POST", "/twins/called/methods", {"methodName": "blink", "shelfLife": 3})
    assert (status, "shelfLife" in told["Message"]) == (400, True)
