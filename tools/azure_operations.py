"""What of Azure a client can do, and by which call: the rows of the table in docs/reference/azure-iot.md.

A cell is the text of the client's call, as the tests have it; or a `Reason` why there is none; or how it was `Seen`
where no test can show it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

PYTHON, NODE, C, AZ = "python", "node", "c", "az"


class Reason(Enum):
    """Why a client does not do something here."""

    SDK_HAS_NONE = "no call"
    HTTPS_HAS_NONE = "no https"
    FOR_DEVICES = "for devices"
    CSR = "no csr"
    NOT_BUILT = "not built"
    NOT_SEEN = "not seen"
    NOT_SERVED = "not served"
    FAILS = "fails"
    POLICY = "policy"


class Seen(Enum):
    """How it was seen, where no test can show it."""

    BY_HAND = "manual"


REASONS: Mapping[Reason, str] = {
    Reason.SDK_HAS_NONE: "The client does not have this operation.",
    Reason.HTTPS_HAS_NONE: "The device client does not support HTTPS.",
    Reason.FOR_DEVICES: (
        "The client uses the module's token with the device's path, which the hub rejects. The hub accepts it with the"
        " module's path (`modules`)."
    ),
    Reason.CSR: (
        "No release of the client sends a certificate signing request. The tests use paho-mqtt, requests and"
        " `birthmark agent` (`certificates`)."
    ),
    Reason.NOT_BUILT: "The tests do not build this part of the C SDK.",
    Reason.NOT_SEEN: "Not tested, neither automatically nor manually.",
    Reason.NOT_SERVED: "Not supported: rejected with `iothub.operation_not_served`.",
    Reason.FAILS: "The client fails before it sends a request.",
    Reason.POLICY: "The client sends a device request with a token of a hub policy, which Birthmark rejects.",
}
Cell: TypeAlias = str | Reason | Seen


@dataclass(frozen=True, slots=True)
class Operation:
    """A row: what is done, what goes over the wire, and by which call of each client."""

    title: str
    wire: str
    cells: Mapping[str, Cell]


def _row(title: str, wire: str, python: Cell, node: Cell, c: Cell) -> Operation:
    az = _OF_AZ.get(title, Reason.SDK_HAS_NONE)
    return Operation(title, wire, {PYTHON: python, NODE: node, C: c, AZ: az})


def _of_service(title: str, wire: str, python: Cell, node: Cell) -> Operation:
    az = _OF_AZ.get(title, Seen.BY_HAND)
    return Operation(title, wire, {PYTHON: python, NODE: node, C: Reason.NOT_BUILT, AZ: az})


_OF_AZ: Mapping[str, Cell] = {
    **dict.fromkeys(
        (
            "register with a certificate",
            "register with a symmetric key",
            "connect with a symmetric key",
            "send telemetry",
        ),
        Seen.BY_HAND,
    ),
    **dict.fromkeys(("register with a certificate signing request", "renew the certificate"), Reason.CSR),
    **dict.fromkeys(
        (
            "connect with a certificate",
            "receive cloud-to-device messages",
            "get the device twin",
            "update reported properties",
        ),
        Reason.NOT_SEEN,
    ),
    **dict.fromkeys(("receive desired properties", "respond to direct methods"), Reason.NOT_SEEN),
    "receive and settle messages over HTTPS": Reason.POLICY,
    "upload a file": Reason.NOT_SEEN,
    **dict.fromkeys(
        ("bulk operations on devices", "get statistics", "bulk operations on enrollments"), Reason.SDK_HAS_NONE
    ),
    **dict.fromkeys(
        (
            *("send a cloud-to-device message", "receive delivery feedback", "receive file upload notifications"),
            *("describe the Event Hubs-compatible endpoint", "read telemetry", "read telemetry with an owner level"),
            "find the endpoint of a hub",
        ),
        Reason.NOT_SEEN,
    ),
    **dict.fromkeys(("get a digital twin", "update a digital twin", "invoke a command"), Reason.NOT_SEEN),
    **dict.fromkeys(("custom allocation", "send a registration payload, receive a response"), Reason.NOT_SEEN),
    "import and export": Reason.NOT_SEEN,
    "test the queries of a configuration": Reason.NOT_SEEN,
    "scheduled jobs": Reason.NOT_SEEN,
}
"""What was seen of the command line, or why not: of a service all that is not named here, of a device nothing else."""


_HAND = Seen.BY_HAND
_NONE, _SERVED = Reason.SDK_HAS_NONE, Reason.NOT_SERVED

OPERATIONS: Sequence[Operation] = (
    _row(
        "register with a certificate",
        "`$dps/registrations/PUT`, `PUT /{scope}/registrations/{id}/register`, AMQP `{scope}/registrations/{id}`",
        "def test_a_device_of_a_group_registers_with_leaf",
        "X509Security(",
        "def test_it_registers_and_sends",
    ),
    _row(
        "register with a symmetric key", "as above", "create_from_symmetric_key(", "SymmetricKeySecurityClient(", _HAND
    ),
    _row(
        "register with a TPM",
        "registration over HTTPS, or AMQP with SASL `TPM`",
        _NONE,
        "TpmSecurityClient(",
        Reason.NOT_BUILT,
    ),
    _row("register with a certificate signing request", "registration with `csr`", Reason.CSR, Reason.CSR, Reason.CSR),
    _row("renew the certificate", "`$iothub/credentials`", Reason.CSR, Reason.CSR, Reason.CSR),
    _row(
        "send a registration payload, receive a response",
        "registration with `payload`",
        "client.provisioning_payload =",
        Reason.NOT_SEEN,
        Reason.NOT_SEEN,
    ),
    _row(
        "connect with a symmetric key",
        "MQTT, AMQP, each also over WebSocket",
        "IoTHubDeviceClient.create_from_connection_string(",
        "MqttWs",
        _HAND,
    ),
    _row(
        "connect with a certificate",
        "as above",
        "IoTHubDeviceClient.create_from_x509_certificate(",
        "x509=true`",
        "def test_it_registers_and_sends",
    ),
    _row(
        "send telemetry",
        "MQTT `devices/{id}/messages/events/`, AMQP `/devices/{id}/messages/events`",
        "client.send_message(",
        "sendEvent(",
        "def test_it_registers_and_s",
    ),
    _row(
        "send telemetry over HTTPS",
        "`POST /devices/{id}/messages/events`",
        Reason.HTTPS_HAS_NONE,
        "sendEventBatch(",
        _HAND,
    ),
    _row(
        "receive cloud-to-device messages",
        "MQTT `devices/{id}/messages/devicebound/`, AMQP `/devices/{id}/messages/devicebound`",
        "on_message_received",
        "client.on('message'",
        _HAND,
    ),
    _row(
        "receive and settle messages over HTTPS",
        "`/devices/{id}/messages/deviceBound`",
        Reason.HTTPS_HAS_NONE,
        "client._transport.receive()",
        Reason.NOT_SEEN,
    ),
    _row(
        "get the device twin",
        "MQTT `$iothub/twin/GET`, AMQP `/devices/{id}/twin`",
        "client.get_twin()",
        "client.getTwin()",
        _HAND,
    ),
    _row(
        "update reported properties",
        "MQTT `$iothub/twin/PATCH/properties/reported`, AMQP as above",
        "patch_twin_reported_properties(",
        "properties.reported.update(",
        _HAND,
    ),
    _row(
        "receive desired properties",
        "MQTT `$iothub/twin/PATCH/properties/desired`, AMQP as above",
        "on_twin_desired_properties_patch_received",
        "twin.on('properties.desired'",
        _HAND,
    ),
    _row(
        "respond to direct methods",
        "MQTT `$iothub/methods`, AMQP `/devices/{id}/methods/devicebound`",
        "on_method_request_received",
        "onDeviceMethod(",
        _HAND,
    ),
    _row(
        "module: connect with a symmetric key",
        "`{id}/{module}`",
        "IoTHubModuleClient.create_from_conn",
        "ModuleClient.from",
        _HAND,
    ),
    _row(
        "module: connect with a certificate",
        "as above",
        "IoTHubModuleClient.create_from_x509_certificate(",
        _NONE,
        Reason.NOT_SEEN,
    ),
    _row(
        "module: send to an output",
        "MQTT `$.on`, AMQP `iothub-outputname`",
        "send_message_to_output(",
        "sendOutputEvent(",
        Reason.NOT_SEEN,
    ),
    _row(
        "module: send telemetry over HTTPS",
        "`POST …/modules/{m}/messages/events`",
        Reason.HTTPS_HAS_NONE,
        Reason.FOR_DEVICES,
        _NONE,
    ),
    _row("module: module twin", "as for a device", "of_module(", "camera.getTwin()", Reason.NOT_SEEN),
    _row(
        "module: respond to direct methods",
        "as for a device",
        "invoke_device_module_method(",
        "camera.onMethod(",
        Reason.NOT_SEEN,
    ),
    _row(
        "upload a file",
        "`POST /devices/{id}/files`, `PUT /storage/uploads/…`, `POST …/files/notifications`",
        "get_storage_info_for_blob(",
        "uploadToBlob(",
        Reason.NOT_BUILT,
    ),
    _of_service("create a device", "`PUT /devices/{id}`", "create_device_with_sas(", "registry.create("),
    _of_service("get a device", "`GET /devices/{id}`", ".get_device(", "registry.get("),
    _of_service("list devices", "`GET /devices`", ".get_devices(", "registry.list()"),
    _of_service("update a device", "`PUT /devices/{id}`, `If-Match`", "update_device_with_sas(", "registry.update("),
    _of_service("delete a device", "`DELETE /devices/{id}`", ".delete_device(", "registry.delete("),
    _of_service(
        "bulk operations on devices", "`POST /devices`", "bulk_create_or_update_devices(", "registry.updateDevices("
    ),
    _of_service(
        "get statistics", "`GET /statistics/…`", "get_device_registry_statistics(", "registry.getRegistryStatistics("
    ),
    _of_service("create a module", "`PUT /devices/{id}/modules/{m}`", "create_module_with_sas(", "registry.addModule("),
    _of_service("get a module", "`GET …/modules/{m}`", "service.get_module(", "registry.getModule("),
    _of_service("list modules", "`GET …/modules`", "service.get_modules(", "registry.getModulesOnDevice("),
    _of_service(
        "update a module", "`PUT …/modules/{m}`, `If-Match`", "update_module_with_sas(", "registry.updateModule("
    ),
    _of_service("delete a module", "`DELETE …/modules/{m}`", "delete_module(", "registry.removeModule("),
    _of_service("get a device twin", "`GET /twins/{id}`", ".get_twin(name)", "registry.getTwin("),
    _of_service("update a device twin", "`PATCH /twins/{id}`", ".update_twin(", "registry.updateTwin("),
    _of_service("replace a device twin", "`PUT /twins/{id}`", ".replace_twin(", _NONE),
    _of_service("get a module twin", "`GET …/modules/{m}`", "service.get_module_twin(", "registry.getModuleTwin("),
    _of_service("update a module twin", "`PATCH …/modules/{m}`", "update_module_twin(", "registry.updateModuleTwin("),
    _of_service("query twins", "`POST /devices/query`", "query_iot_hub(", "registry.createQuery("),
    _of_service(
        "invoke a direct method",
        "`POST /twins/{id}/methods`",
        "invoke_device_method(",
        "invokeDeviceMethod(name, asked)",
    ),
    _of_service(
        "invoke a module's direct method",
        "`POST …/modules/{m}/methods`",
        "invoke_device_module_method(",
        "invokeDeviceMethod(name, 'camera'",
    ),
    _of_service(
        "send a cloud-to-device message",
        "AMQP `/messages/devicebound`, `POST /devices/{id}/messages/deviceBound`",
        "send_c2d_message(",
        "client.send('d1'",
    ),
    _of_service(
        "receive delivery feedback",
        "AMQP and HTTPS `/messages/serviceBound/feedback`",
        "uamqp.ReceiveClient(",
        "getFeedbackReceiver(",
    ),
    _of_service(
        "receive file upload notifications",
        "AMQP and HTTPS `/messages/serviceBound/filenotifications`",
        Reason.SDK_HAS_NONE,
        "getFileNotificationReceiver(",
    ),
    _of_service(
        "describe the Event Hubs-compatible endpoint",
        "AMQP `$management`",
        "get_eventhub_properties(",
        "getEventHubProperties(",
    ),
    _of_service(
        "read telemetry",
        "AMQP `{hub}/ConsumerGroups/{group}/Partitions/{n}`",
        "Reader(birthmark_cloud",
        "earliestEventPosition",
    ),
    _of_service("read telemetry with an owner level", "`com.microsoft:epoch`", "owner_level=1", "ownerLevel: 1"),
    _of_service("find the endpoint of a hub", "AMQP `amqp:link:redirect`", "AMQPLinkRedirect", Reason.SDK_HAS_NONE),
    _of_service(
        "apply a configuration",
        "`POST …/applyConfigurationContent`",
        "apply_configuration_on_edge_device(",
        "registry.applyConfigurationContentOnDevice(",
    ),
    _of_service("get a digital twin", "`GET /digitaltwins/{id}`", "get_digital_twin(", Reason.NOT_SEEN),
    _of_service("update a digital twin", "`PATCH /digitaltwins/{id}`", "update_digital_twin(", Reason.NOT_SEEN),
    _of_service(
        "invoke a command", "`POST /digitaltwins/{id}/…/commands/{n}`", "invoke_component_command(", Reason.NOT_SEEN
    ),
    _of_service(
        "create and change a configuration",
        "`PUT /configurations/{id}`, `If-Match`",
        "manager.create_configuration(",
        "registry.addConfiguration(",
    ),
    _of_service(
        "get and delete configurations",
        "`GET /configurations`, `GET` and `DELETE /configurations/{id}`",
        "manager.get_configurations(",
        "registry.getConfigurations(",
    ),
    _of_service(
        "test the queries of a configuration",
        "`POST /configurations/testQueries`",
        "manager.test_configuration_queries(",
        _NONE,
    ),
    _of_service("deploy IoT Edge modules", "`modulesContent`", "deployment(", "modulesContent"),
    _of_service("scheduled jobs", "`/jobs/v2/{id}`", "jobs.create_scheduled_job(", "jobs.scheduleTwinUpdate("),
    _of_service(
        "import and export", "`/jobs/create`, `/jobs/{id}`", "create_import_export_job(", "importDevicesFromBlob("
    ),
    _of_service(
        "create and update an enrollment",
        "`PUT /enrollments/{id}`",
        "client.create_or_update(",
        "createOrUpdateIndividualEnrollment(",
    ),
    _of_service("get an enrollment", "`GET`", "get_individual_enrollment(", "service.getIndividualEnrollment("),
    _of_service(
        "get attestation keys",
        "`POST …/attestationmechanism`",
        "get_individual_enrollment_attestation_mechanism(",
        "getIndividualEnrollmentAttestationMechanism(",
    ),
    _of_service(
        "query enrollments", "`POST …/query`", "create_individual_enrollment_query(", "createIndividualEnrollmentQ"
    ),
    _of_service("delete an enrollment", "`DELETE`", "client.delete(", "deleteIndividualEnrollment("),
    _of_service(
        "bulk operations on enrollments", "`POST /enrollments`", "run_bulk_operation(", "runBulkEnrollmentOperation("
    ),
    _of_service("custom allocation", "`customAllocationDefinition`", "CustomAllocationDefinition(", Reason.NOT_SEEN),
    _of_service(
        "manage enrollment groups", "`/enrollmentGroups`", "get_enrollment_group(", "createOrUpdateEnrollmentGroup("
    ),
    _of_service(
        "query registrations of a group",
        "`POST /registrations/{id}/query`",
        Reason.FAILS,
        "createEnrollmentGroupDeviceRegistrationStateQuery(",
    ),
    _of_service(
        "get and delete a registration",
        "`/registrations/{id}`",
        "get_registration_state(",
        "deleteDeviceRegistrationState(",
    ),
)
