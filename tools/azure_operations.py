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
    AMQP = "amqp"
    NOT_BUILT = "not built"
    NOT_SEEN = "not seen"
    NOT_SERVED = "not served"
    FAILS = "fails"
    POLICY = "policy"


class Seen(Enum):
    """How it was seen, where no test can show it."""

    BY_HAND = "by hand"


REASONS: Mapping[Reason, str] = {
    Reason.SDK_HAS_NONE: "The client has no such call.",
    Reason.HTTPS_HAS_NONE: "The client speaks no HTTPS as a device or module.",
    Reason.FOR_DEVICES: (
        "The client asks with the module's token at its device's path, and is refused there; at the module's own path"
        " the hub takes it (`modules`)."
    ),
    Reason.CSR: (
        "No release of it sends a certificate request; tests do it by paho-mqtt, requests and `birthmark agent`"
        " (`certificates`)."
    ),
    Reason.AMQP: "The client does it by AMQP alone, which is not served.",
    Reason.NOT_BUILT: "The part of the C SDK that does it was not built here.",
    Reason.NOT_SEEN: "Not tried by hand, and no test has it.",
    Reason.NOT_SERVED: "Not served: refused as `iothub.operation_not_served`.",
    Reason.FAILS: "The client's own call fails before it asks.",
    Reason.POLICY: "The client asks as the device with a token of a hub's policy, which is refused here.",
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
    **dict.fromkeys(("register by certificate", "register by a shared key", "connect by a key", "send"), Seen.BY_HAND),
    **dict.fromkeys(("register with a certificate request", "be issued the next certificate"), Reason.CSR),
    **dict.fromkeys(("connect by a certificate", "receive", "read its twin", "report"), Reason.NOT_SEEN),
    **dict.fromkeys(("hear what is desired", "answer methods"), Reason.NOT_SEEN),
    "receive and settle over HTTPS": Reason.POLICY,
    "upload a file": Reason.NOT_SERVED,
    **dict.fromkeys(("many at once", "count", "enrollments in bulk"), Reason.SDK_HAS_NONE),
    **dict.fromkeys(("send to a device", "be told what became of it"), Reason.AMQP),
    **dict.fromkeys(("read a digital twin", "change a digital twin", "call a command"), Reason.NOT_SEEN),
    **dict.fromkeys(("have a program choose the hub", "send a payload, and be answered one"), Reason.NOT_SEEN),
    **dict.fromkeys(("configurations by a condition", "jobs, import and export"), Reason.NOT_SERVED),
}
"""What was seen of the command line, or why not: of a service all that is not named here, of a device nothing else."""


_HAND = Seen.BY_HAND
_NONE, _SERVED = Reason.SDK_HAS_NONE, Reason.NOT_SERVED

OPERATIONS: Sequence[Operation] = (
    _row(
        "register by certificate",
        "`$dps/registrations/PUT`, `PUT /{scope}/registrations/{id}/register`",
        "def test_a_device_of_a_group_registers_with_leaf",
        "X509Security(",
        "def test_it_registers_and_sends",
    ),
    _row("register by a shared key", "the same", "create_from_symmetric_key(", "SymmetricKeySecurityClient(", _HAND),
    _row("register by a TPM", "the same, HTTPS", _NONE, "TpmSecurityClient(", Reason.NOT_BUILT),
    _row("register with a certificate request", "the same, `csr`", Reason.CSR, Reason.CSR, Reason.CSR),
    _row("be issued the next certificate", "`$iothub/credentials`", Reason.CSR, Reason.CSR, Reason.CSR),
    _row(
        "send a payload, and be answered one",
        "the same, `payload`",
        "client.provisioning_payload =",
        Reason.NOT_SEEN,
        Reason.NOT_SEEN,
    ),
    _row("connect by a key", "MQTT, WebSocket", "IoTHubDeviceClient.create_from_connection_string(", "MqttWs", _HAND),
    _row(
        "connect by a certificate",
        "MQTT, WebSocket",
        "IoTHubDeviceClient.create_from_x509_certificate(",
        "x509=true`",
        "def test_it_registers_and_sends",
    ),
    _row(
        "send", "`devices/{id}/messages/events/`", "client.send_message(", "sendEvent(", "def test_it_registers_and_s"
    ),
    _row("send over HTTPS", "`POST /devices/{id}/messages/events`", Reason.HTTPS_HAS_NONE, "sendEventBatch(", _HAND),
    _row("receive", "`devices/{id}/messages/devicebound/`", "on_message_received", "client.on('message'", _HAND),
    _row(
        "receive and settle over HTTPS",
        "`/devices/{id}/messages/deviceBound`",
        Reason.HTTPS_HAS_NONE,
        "client._transport.receive()",
        Reason.NOT_SEEN,
    ),
    _row("read its twin", "`$iothub/twin/GET`", "client.get_twin()", "client.getTwin()", _HAND),
    _row(
        "report",
        "`$iothub/twin/PATCH/properties/reported`",
        "patch_twin_reported_properties(",
        "properties.reported.update(",
        _HAND,
    ),
    _row(
        "hear what is desired",
        "`$iothub/twin/PATCH/properties/desired`",
        "on_twin_desired_properties_patch_received",
        "twin.on('properties.desired'",
        _HAND,
    ),
    _row("answer methods", "`$iothub/methods`", "on_method_request_received", "onDeviceMethod(", _HAND),
    _row(
        "module: connect by a key", "`{id}/{module}`", "IoTHubModuleClient.create_from_conn", "ModuleClient.from", _HAND
    ),
    _row(
        "module: connect by a certificate",
        "the same",
        "IoTHubModuleClient.create_from_x509_certificate(",
        _NONE,
        Reason.NOT_SEEN,
    ),
    _row("module: send by an output", "`$.on`", "send_message_to_output(", "sendOutputEvent(", Reason.NOT_SEEN),
    _row(
        "module: send over HTTPS",
        "`POST …/modules/{m}/messages/events`",
        Reason.HTTPS_HAS_NONE,
        Reason.FOR_DEVICES,
        _NONE,
    ),
    _row("module: twin", "as a device's", "of_module(", "camera.getTwin()", Reason.NOT_SEEN),
    _row(
        "module: answer methods", "as a device's", "invoke_device_module_method(", "camera.onMethod(", Reason.NOT_SEEN
    ),
    _row("upload a file", "`POST /devices/{id}/files`", _SERVED, _SERVED, _SERVED),
    _of_service("make a device", "`PUT /devices/{id}`", "create_device_with_sas(", "registry.create("),
    _of_service("read a device", "`GET /devices/{id}`", ".get_device(", "registry.get("),
    _of_service("list devices", "`GET /devices`", ".get_devices(", "registry.list()"),
    _of_service("change a device", "`PUT /devices/{id}`, `If-Match`", "update_device_with_sas(", "registry.update("),
    _of_service("remove a device", "`DELETE /devices/{id}`", ".delete_device(", "registry.delete("),
    _of_service("many at once", "`POST /devices`", "bulk_create_or_update_devices(", "registry.updateDevices("),
    _of_service("count", "`GET /statistics/…`", "get_device_registry_statistics(", "registry.getRegistryStatistics("),
    _of_service("make a module", "`PUT /devices/{id}/modules/{m}`", "create_module_with_sas(", "registry.addModule("),
    _of_service("read a module", "`GET …/modules/{m}`", "service.get_module(", "registry.getModule("),
    _of_service("list modules", "`GET …/modules`", "service.get_modules(", "registry.getModulesOnDevice("),
    _of_service(
        "change a module", "`PUT …/modules/{m}`, `If-Match`", "update_module_with_sas(", "registry.updateModule("
    ),
    _of_service("remove a module", "`DELETE …/modules/{m}`", "delete_module(", "registry.removeModule("),
    _of_service("read a twin", "`GET /twins/{id}`", ".get_twin(name)", "registry.getTwin("),
    _of_service("change a twin", "`PATCH /twins/{id}`", ".update_twin(", "registry.updateTwin("),
    _of_service("replace a twin", "`PUT /twins/{id}`", ".replace_twin(", _NONE),
    _of_service("read a module's twin", "`GET …/modules/{m}`", "service.get_module_twin(", "registry.getModuleTwin("),
    _of_service("change a module's twin", "`PATCH …/modules/{m}`", "update_module_twin(", "registry.updateModuleTwin("),
    _of_service("query twins", "`POST /devices/query`", "query_iot_hub(", "registry.createQuery("),
    _of_service(
        "call a method", "`POST /twins/{id}/methods`", "invoke_device_method(", "invokeDeviceMethod(name, asked)"
    ),
    _of_service(
        "call a module's method",
        "`POST …/modules/{m}/methods`",
        "invoke_device_module_method(",
        "invokeDeviceMethod(name, 'camera'",
    ),
    _of_service("send to a device", "`POST /devices/{id}/messages/deviceBound`", Reason.AMQP, Reason.AMQP),
    _of_service("be told what became of it", "`/messages/serviceBound/feedback`", "receive_feedback_not", Reason.AMQP),
    _of_service(
        "apply a configuration",
        "`POST …/applyConfigurationContent`",
        "apply_configuration_on_edge_device(",
        "registry.applyConfigurationContentOnDevice(",
    ),
    _of_service("read a digital twin", "`GET /digitaltwins/{id}`", "get_digital_twin(", Reason.NOT_SEEN),
    _of_service("change a digital twin", "`PATCH /digitaltwins/{id}`", "update_digital_twin(", Reason.NOT_SEEN),
    _of_service(
        "call a command", "`POST /digitaltwins/{id}/…/commands/{n}`", "invoke_component_command(", Reason.NOT_SEEN
    ),
    _of_service("configurations by a condition", "`/configurations`", _SERVED, _SERVED),
    _of_service("jobs, import and export", "`/jobs`", _SERVED, _SERVED),
    _of_service(
        "make and change an enrollment",
        "`PUT /enrollments/{id}`",
        "client.create_or_update(",
        "createOrUpdateIndividualEnrollment(",
    ),
    _of_service("read an enrollment", "`GET`", "get_individual_enrollment(", "service.getIndividualEnrollment("),
    _of_service(
        "read its keys",
        "`POST …/attestationmechanism`",
        "get_individual_enrollment_attestation_mechanism(",
        "getIndividualEnrollmentAttestationMechanism(",
    ),
    _of_service(
        "find enrollments", "`POST …/query`", "create_individual_enrollment_query(", "createIndividualEnrollmentQ"
    ),
    _of_service("remove an enrollment", "`DELETE`", "client.delete(", "deleteIndividualEnrollment("),
    _of_service("enrollments in bulk", "`POST /enrollments`", "run_bulk_operation(", "runBulkEnrollmentOperation("),
    _of_service(
        "have a program choose the hub", "`customAllocationDefinition`", "CustomAllocationDefinition(", Reason.NOT_SEEN
    ),
    _of_service("enrollment groups", "`/enrollmentGroups`", "get_enrollment_group(", "createOrUpdateEnrollmentGroup("),
    _of_service(
        "registrations of a group",
        "`POST /registrations/{id}/query`",
        Reason.FAILS,
        "createEnrollmentGroupDeviceRegistrationStateQuery(",
    ),
    _of_service(
        "read and remove a registration",
        "`/registrations/{id}`",
        "get_registration_state(",
        "deleteDeviceRegistrationState(",
    ),
)
