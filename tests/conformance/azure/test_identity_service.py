"""The requests of IoT Edge's identity service at DPS and hub, in its order, and what becomes of them when it may not.

Not run is the service itself, which takes a device with systemd and four daemons: its requests were read in its source.
"""

import base64
import json
from pathlib import Path

import pytest

from support.azure.clients import a_file_device, run_python
from support.azure.identity_service import CloudError, IdentityService, Proof
from support.server.servers import RunningServer

pytestmark = pytest.mark.system


def an_edge_device(server: RunningServer, directory: Path, name: str, kind: str) -> IdentityService:
    """Return the service of a device that is enrolled with `--edge` and was provisioned by its own requests."""
    return a_provisioned_device(server, directory, name, kind, "--edge")


def a_provisioned_device(
    server: RunningServer, directory: Path, name: str, kind: str, *options: str
) -> IdentityService:
    directory.mkdir(exist_ok=True)
    if kind == "x509":
        files = a_file_device(directory, name)
        proof = Proof(None, files.certificate_file, files.key_file)
        server.run("device", "enroll", "--cert", str(files.certificate_file), *options)
    else:
        server.run("device", "enroll", name, "--symmetric-key", str(directory / "key"), *options)
        proof = Proof(base64.b64decode((directory / "key").read_text()))
    service = IdentityService(server, proof, name)
    state = service.provision(name, {"line": 3})
    assert (state["assignedHub"], state["deviceId"]) == (service.hub, name)
    return service


@pytest.fixture(params=["sas", "x509"])
def edge(request: pytest.FixtureRequest, server: RunningServer, tmp_path: Path) -> IdentityService:
    name = f"ids-{request.param}-{request.node.originalname.removeprefix('test_')[:40].replace('_', '-')}"
    return an_edge_device(server, tmp_path, name, request.param)


def refused(act: object, *given: str) -> int:
    with pytest.raises(CloudError) as caught:
        act(*given)  # type: ignore[operator]
    assert caught.value.message
    return caught.value.status


def test_a_device_that_was_provisioned_keeps_its_modules(edge: IdentityService) -> None:
    assert [one.module_id for one in edge.modules()] == ["$edgeAgent", "$edgeHub"]
    made = edge.make("camera")
    assert (made.device_id, made.module_id, made.keys) == (edge.device_id, "camera", edge.derived(made))
    assert edge.module("camera") == made
    assert edge.rekey("camera") == made
    agent = edge.rekey("$edgeAgent")
    assert (agent.managed_by, agent.keys) == ("iotEdge", edge.derived(agent))
    edge.remove("camera")
    assert [one.module_id for one in edge.modules()] == ["$edgeAgent", "$edgeHub"]


TWIN = """
import os
from azure.iot.device import IoTHubModuleClient
client = IoTHubModuleClient.create_from_connection_string(os.environ["MODULE"])
client.connect()
client.send_message("from the module")
print(client.get_twin()["desired"]["$version"])
client.shutdown()
"""


@pytest.mark.parametrize("kind", ["sas", "x509"])
def test_a_device_without_iot_edge_keeps_modules_that_connect(server: RunningServer, tmp_path: Path, kind: str) -> None:
    device = a_provisioned_device(server, tmp_path, f"ids-plain-{kind}", kind)
    assert device.modules() == []
    made = device.make("camera")
    assert device.modules() == [device.rekey("camera")] == [made]
    assert made.keys is not None
    text = f"HostName={device.hub};DeviceId={device.device_id};ModuleId=camera;SharedAccessKey={made.keys[0]}"
    done = run_python(TWIN, {**server.environment, "MODULE": text})
    assert (done.stdout, done.returncode) == ("1\n", 0), done.stderr
    device.remove("camera")
    assert device.modules() == []


@pytest.mark.parametrize("kind", ["sas", "x509"])
def test_a_device_has_fifty_modules_and_no_more(server: RunningServer, tmp_path: Path, kind: str) -> None:
    device = a_provisioned_device(server, tmp_path, f"ids-fifty-{kind}", kind)
    for number in range(50):
        device.of_hub("PUT", f"m{number}", {200}, {"moduleId": f"m{number}", "deviceId": device.device_id})
    assert refused(device.make, "one-more") == 403
    assert len(device.modules()) == 50


def test_provisioning_again_leaves_hub_device_and_modules(edge: IdentityService) -> None:
    made = edge.make("camera")
    again = edge.provision(edge.device_id)
    assert (again["assignedHub"], again["deviceId"]) == (edge.hub, edge.device_id)
    assert edge.module("camera") == made


def test_a_module_that_is_made_again_is_of_another_generation(edge: IdentityService) -> None:
    """Its keys are derived from it: those of the one before would let nobody in."""
    first = edge.make("camera")
    edge.remove("camera")
    second = edge.make("camera")
    assert second.generation_id != first.generation_id
    assert second.keys != first.keys


def test_a_module_that_is_not_there_is_not_found(edge: IdentityService) -> None:
    edge.make("camera")
    edge.remove("camera")
    assert refused(edge.module, "camera") == 404
    assert refused(edge.rekey, "camera") == 404
    assert refused(edge.remove, "camera") == 404
    body = {"moduleId": "camera", "deviceId": edge.device_id}
    with pytest.raises(CloudError) as caught:
        edge.of_hub("PUT", "camera", {200}, body, if_match="*")
    assert caught.value.status == 404


def test_a_module_that_is_there_is_not_made_again(edge: IdentityService) -> None:
    made = edge.make("camera")
    assert refused(edge.make, "camera") == 409
    assert edge.module("camera") == made


def test_a_module_is_changed_by_the_etag_that_it_has(edge: IdentityService) -> None:
    """It sends `*` alone; who holds an etag is told when another was faster."""
    edge.make("camera")
    etag = edge.of_hub("GET", "camera", {200})["etag"]
    body = {"moduleId": "camera", "deviceId": edge.device_id, "managedBy": "me"}
    changed = edge.of_hub("PUT", "camera", {200}, body, if_match=f'"{etag}"')
    assert (changed["managedBy"], changed["etag"] != etag) == ("me", True)
    for method, more in (("PUT", body), ("DELETE", None)):
        with pytest.raises(CloudError) as caught:
            edge.of_hub(method, "camera", {200, 204}, more, if_match=f'"{etag}"')
        assert caught.value.status == 412
    assert edge.of_hub("GET", "camera", {200})["managedBy"] == "me"


def test_a_device_that_is_disabled_reaches_no_module_and_has_them_when_it_is_enabled(
    server: RunningServer, edge: IdentityService
) -> None:
    made = edge.make("camera")
    name = edge.device_id
    server.run("hub", "device", "disable", name)
    assert refused(edge.modules) == 401
    assert refused(edge.make, "door") == 401
    assert refused(edge.remove, "camera") == 401
    server.run("hub", "device", "enable", name)
    assert edge.module("camera") == made


def test_a_device_of_another_proof_reaches_no_module(
    server: RunningServer, edge: IdentityService, tmp_path: Path
) -> None:
    edge.make("camera")
    unauthenticated = a_file_device(tmp_path, "ids-stranger", common_name=edge.device_id)
    for proof in (Proof(b"another"), Proof(None, unauthenticated.certificate_file, unauthenticated.key_file), Proof()):
        other = IdentityService(server, proof, edge.device_id)
        assert refused(other.modules) == 401
        assert refused(other.make, "door") == 401
        assert refused(other.remove, "camera") == 401
    assert [one.module_id for one in edge.modules()] == ["$edgeAgent", "$edgeHub", "camera"]


def test_a_module_keeps_no_modules(server: RunningServer, edge: IdentityService) -> None:
    made = edge.make("camera")
    assert made.keys is not None
    own = IdentityService(server, Proof(base64.b64decode(made.keys[0] or "")), edge.device_id)
    assert refused(own.modules) == 401
    token = own.token(f"{own.hub}/devices/{own.device_id}/modules/camera")
    path = f"/devices/{own.device_id}/modules"
    assert own.ask("GET", path, "2017-11-08-preview", token)[0] == 401
    assert own.ask("DELETE", f"{path}/camera", "2017-11-08-preview", token, **{"If-Match": "*"})[0] == 401


def test_a_token_that_has_ended_is_refused(server: RunningServer, tmp_path: Path) -> None:
    edge = an_edge_device(server, tmp_path, "ids-ended", "sas")
    path, resource = f"/devices/{edge.device_id}/modules", f"{edge.hub}/devices/{edge.device_id}"
    answer = edge.ask("GET", path, "2017-11-08-preview", edge.token(resource, lifetime_s=-3600))
    assert answer[0] == 401


def test_names_are_read_as_it_encodes_them(server: RunningServer) -> None:
    """Of what a name may have, `=` alone is encoded; `$`, `:`, `(` and their like stand as they are."""
    name = "ids=(a):b'c!@d"
    made = json.loads(server.run("hub", "device", "create", name, "--edge", "--json").stdout)
    edge = IdentityService(server, Proof(base64.b64decode(made["primary_key"])), name)
    module = edge.make("cam=(1):$x")
    assert (module.device_id, module.module_id) == (name, "cam=(1):$x")
    assert edge.module("cam=(1):$x") == module
    edge.remove("cam=(1):$x")


def test_a_module_with_a_certificate_is_none_that_it_can_read(server: RunningServer, tmp_path: Path) -> None:
    """It knows the types `none`, `sas` and `x509`; a hub says `selfSigned`, and it gives the whole list up."""
    edge = an_edge_device(server, tmp_path, "ids-own-certificate", "sas")
    files = a_file_device(tmp_path, "ids-door")
    server.run("hub", "module", "create", edge.device_id, "door", "--cert", str(files.certificate_file))
    with pytest.raises(AssertionError, match="gives the whole list up"):
        edge.modules()


@pytest.mark.parametrize("kind", ["sas", "x509"])
def test_who_is_not_on_record_or_disabled_is_told_so_when_it_registers(
    server: RunningServer, tmp_path: Path, kind: str
) -> None:
    name = f"ids-refused-{kind}"
    edge = an_edge_device(server, tmp_path, name, kind)
    server.run("device", "disable", name)
    assert refused(edge.provision, name) == 401
    assert server.why(name)["code"] == "dps.enrollment_disabled"
    server.run("device", "enable", name)
    assert edge.provision(name)["deviceId"] == name
    server.run("device", "rm", name, "--yes")
    assert refused(edge.provision, name) == 401
    assert edge.modules(), "what it has at the hub it keeps"


@pytest.mark.parametrize("kind", ["sas", "x509"])
def test_who_has_another_proof_or_scope_is_refused_when_it_registers(
    server: RunningServer, tmp_path: Path, kind: str
) -> None:
    name = f"ids-wrong-{kind}"
    edge = an_edge_device(server, tmp_path, name, kind)
    unauthenticated = a_file_device(tmp_path, "stranger", common_name=name)
    for proof in (Proof(b"another"), Proof(None, unauthenticated.certificate_file, unauthenticated.key_file), Proof()):
        assert refused(IdentityService(server, proof, name).provision, name) == 401
    edge.scope = "0neFFFFFFFF"
    assert refused(edge.provision, name) == 404


def test_who_asks_for_anothers_registration_learns_nothing(server: RunningServer, tmp_path: Path) -> None:
    first, second = (an_edge_device(server, tmp_path / kind, f"ids-two-{kind}", kind) for kind in ("sas", "x509"))
    body = {"registrationId": first.device_id}
    resource = f"{first.scope}/registrations/{first.device_id}"
    at = f"/{first.scope}/registrations/{first.device_id}"
    status, _, text = first.ask("PUT", f"{at}/register", "2021-06-01", first.token(resource, "registration"), body)
    assert status == 202
    operation = json.loads(text)["operationId"]
    status, _, text = second.ask("GET", f"{at}/operations/{operation}", "2021-06-01", None)
    assert status == 401
    assert b"assignedHub" not in text
