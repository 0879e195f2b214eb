"""What one does in Azure's portal with services, policies and keys, by commands: show, list, rotate, connect by."""

import base64
import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from birthmark.auth.sas import derive_device_key
from support.azure.clients import run_python
from support.chips.tpm_vectors import RSA_EK
from support.console.persons import Person
from support.server.servers import RunningServer, a_new_server, a_server

pytestmark = pytest.mark.system

BY_STRING = """
import os
from azure.iot.device import IoTHubDeviceClient, IoTHubModuleClient
text, ca = os.environ["TEXT"], open(os.environ["SSL_CERT_FILE"]).read()
kind = IoTHubModuleClient if "ModuleId=" in text else IoTHubDeviceClient
client = kind.create_from_connection_string(text, server_verification_cert=ca, connection_retry=False)
client.connect()
client.send_message("by a string")
client.shutdown()
print("sent")
"""
BY_GROUP_KEY = """
import os
from azure.iot.device import ProvisioningDeviceClient
client = ProvisioningDeviceClient.create_from_symmetric_key(
    os.environ["PROVISIONING_HOST"], os.environ["ID"], os.environ["PROVISIONING_IDSCOPE"], os.environ["KEY"])
print(client.register().registration_state.assigned_hub)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_server(tmp_path_factory.mktemp("verbs"), 'names = ["hub2.example"]\n') as running:
        running.run("hub", "create", "hub-2", "--host", "hub2.example")
        running.run("dps", "link", "hub-2")
        yield running


def shown(server: RunningServer, *words: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(server.run(*words, "--json").stdout)
    return found


def test_a_new_provisioning_service_leads_to_the_hub_that_it_needs(server: RunningServer) -> None:
    told = server.run("dps", "create", "verb-dps").stderr
    assert "birthmark dps link birthmark --dps verb-dps" in told
    server.run("dps", "link", "birthmark", "--dps", "verb-dps")
    assert shown(server, "dps", "show", "verb-dps")["linked_hubs"] == [server.address]


def test_a_provisioning_service_and_a_hub_are_shown_without_a_secret(server: RunningServer) -> None:
    dps, hub = shown(server, "dps", "show"), shown(server, "hub", "show", "hub-2")
    assert dps["id_scope"] == server.endpoints["dps"]["id_scope"]
    assert "hub2.example" in str(dps["linked_hubs"])
    assert (hub["host"], hub["devices"], hub["connected"]) == ("hub2.example", 0, 0)
    known = json.loads(server.run("dps", "key", "--json").stdout)
    assert known["primary_key"] not in json.dumps([dps, hub])
    assert server.attempt("hub", "show", "none").returncode == 3


def test_policies_are_listed_shown_and_rotated(server: RunningServer) -> None:
    rights = {row["policy"]: row["rights"] for row in server.rows("hub", "policy", "ls", "--hub", "hub-2")}
    assert rights["service"] == "ServiceConnect"
    assert rights["registryReadWrite"] == "RegistryRead, RegistryWrite"
    assert [row["policy"] for row in server.rows("dps", "policy", "ls")] == ["provisioningserviceowner"]
    before = shown(server, "hub", "policy", "show", "service", "--hub", "hub-2")
    after = shown(server, "hub", "policy", "rotate", "service", "secondary", "--hub", "hub-2")
    assert before["primary_key"] == after["primary_key"]
    assert before["secondary_key"] != after["secondary_key"]
    assert str(after["secondary_connection_string"]).startswith("HostName=hub2.example")
    dps = shown(server, "dps", "policy", "rotate", "provisioningserviceowner", "secondary")
    assert dps["secondary_key"] == shown(server, "dps", "policy", "show", "provisioningserviceowner")["secondary_key"]
    assert server.attempt("hub", "policy", "rotate", "service", "third", "--hub", "hub-2").returncode == 2


def test_who_rotates_a_key_that_the_environment_has_is_told(tmp_path: Path) -> None:
    with a_new_server(tmp_path) as alone:
        said = {
            policy: "birthmark env" in alone.run("hub", "policy", "rotate", policy, "primary").stderr
            for policy in ("registryRead", "iothubowner")
        }
    assert said == {"registryRead": False, "iothubowner": True}


def test_a_device_and_a_module_connect_by_the_strings_that_are_shown(server: RunningServer) -> None:
    server.run("hub", "device", "create", "verb-1")
    server.run("hub", "module", "create", "verb-1", "camera")
    for told in (
        shown(server, "hub", "device", "key", "verb-1"),
        shown(server, "hub", "module", "key", "verb-1", "camera"),
    ):
        for which in ("primary", "secondary"):
            text = str(told[f"{which}_connection_string"])
            done = run_python(BY_STRING, {**server.environment, "TEXT": text})
            assert done.stdout.strip() == "sent", done.stderr
    assert "iothub.no_keys" not in server.run("why", "--limit", "5", "--json").stdout
    server.run("hub", "device", "create", "verb-2", "--by-ca")
    assert server.attempt("hub", "device", "key", "verb-2").returncode == 1
    assert server.attempt("hub", "device", "key", "verb-none").returncode == 3
    assert server.attempt("hub", "module", "key", "verb-1", "none").returncode == 3


def test_a_list_of_no_devices_says_of_what_there_is_none(server: RunningServer) -> None:
    server.run("hub", "device", "create", "lone-1", "--by-ca")
    assert "The hub has no IoT Edge device." in server.run("hub", "device", "ls", "--edge").stderr
    assert "No row matches --where." in server.run("hub", "device", "ls", "--where", "device=none").stderr
    assert "The hub has no device." in server.run("hub", "device", "ls", "--hub", "hub-2").stderr


def test_a_query_of_modules_says_which_they_are(server: RunningServer) -> None:
    server.run("hub", "device", "create", "many-1")
    for name in ("door", "lamp"):
        server.run("hub", "module", "create", "many-1", name)
    told = server.run("hub", "query", "SELECT * FROM devices.modules WHERE deviceId = 'many-1'").stdout
    assert "module" in told.splitlines()[0]
    assert {"door", "lamp"} <= set(told.split())
    assert "module" not in server.run("hub", "query", "SELECT * FROM devices").stdout.splitlines()[0]


def test_who_may_only_look_is_shown_no_key_of_a_device(server: RunningServer, tmp_path: Path) -> None:
    server.run("user", "create", "looker", "--role", "viewer", "--out", str(tmp_path / "looker.invitation"))
    looker = Person(tmp_path / "looker")
    looker.run("login", str(tmp_path / "looker.invitation"))
    server.run("hub", "device", "create", "verb-3")
    assert looker.refused("hub", "device", "key", "verb-3") == "operator.role_too_low"
    assert looker.refused("hub", "policy", "show", "service") == "operator.role_too_low"
    assert json.loads(looker.run("hub", "show", "--json"))["name"] == "birthmark"


def test_a_device_by_a_key_gets_the_hub_that_is_named(server: RunningServer, tmp_path: Path) -> None:
    key = tmp_path / "keyed.key"
    server.run("device", "enroll", "keyed", "--symmetric-key", str(key), "--hub", "hub-2")
    environment = {**server.environment, "ID": "keyed", "KEY": key.read_text().strip()}
    assert run_python(BY_GROUP_KEY, environment).stdout.strip() == "hub2.example"
    again = server.attempt("device", "enroll", "keyed", "--symmetric-key", str(tmp_path / "b"), "--hub", "birthmark")
    assert again.returncode != 0  # it is on record with another hub
    server.run("device", "enroll", "keyed", "--symmetric-key", str(tmp_path / "c"), "--hub", "birthmark", "--update")
    assert (tmp_path / "c").read_text() == key.read_text()
    assert (
        server.attempt("device", "enroll", "x", "--symmetric-key", str(tmp_path / "d"), "--hub", "none").returncode == 1
    )


def test_a_tpm_gets_the_hub_that_is_named(server: RunningServer) -> None:
    key = base64.b64encode(RSA_EK).decode()
    row = shown(server, "device", "enroll", "tpm-1", "--endorsement-key", key, "--hub", "hub-2")
    assert row["outcome"] == "created"
    same = shown(server, "device", "enroll", "tpm-1", "--endorsement-key", key, "--hub", "hub-2")
    assert same["outcome"] == "unchanged"
    assert server.attempt("device", "enroll", "tpm-1", "--endorsement-key", key, "--hub", "birthmark").returncode


def test_a_group_of_shared_keys_lets_in_who_has_a_key_of_either(server: RunningServer, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    words = ("device", "enroll-group", "boards", "--symmetric-key")
    server.run(*words, str(first), "--secondary", str(second), "--hub", "hub-2")
    assert first.stat().st_mode & 0o077 == 0
    assert second.stat().st_mode & 0o077 == 0
    for name, file in (("board-1", first), ("board-2", second)):
        key = base64.b64encode(derive_device_key(base64.b64decode(file.read_text()), name)).decode()
        done = run_python(BY_GROUP_KEY, {**server.environment, "ID": name, "KEY": key})
        assert done.stdout.strip() == "hub2.example", done.stderr
    assert server.attempt(*words, str(first)).returncode != 0  # the file is there
    server.run(*words, str(tmp_path / "again"))
    assert (tmp_path / "again").read_text() == first.read_text()
    server.run("device", "disable", "boards", "--group")
    done = run_python(BY_GROUP_KEY, {**server.environment, "ID": "board-1", "KEY": "AAAA"})
    assert done.returncode != 0


@pytest.fixture(scope="module")
def cloud(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """A home whose profile `plant` is this server's hub, which counts for Azure's there, and no server of its own."""
    home = tmp_path_factory.mktemp("home")
    text = home / "hub"
    text.touch(0o600)
    text.write_text(server.environment["IOTHUB_CONNECTION_STRING"])
    profiles = home / ".config" / "birthmark" / "profiles.toml"
    profiles.parent.mkdir(parents=True)
    told = f'[plant.azure]\nhub_connection_string_file = "{text}"\nca_file = "{server.endpoints["trust_bundle"]}"\n'
    profiles.write_text(f"{told}[none.azure]\n")
    return {"HOME": str(home), "BIRTHMARK_DATA": str(home / "none")}


def test_the_same_verbs_look_at_a_hub_of_a_profile(server: RunningServer, cloud: Mapping[str, str]) -> None:
    server.run("hub", "device", "create", "far-1", "--edge")
    server.run("hub", "device", "create", "far-2", "--by-ca")
    server.run("hub", "twin", "far-2", "--tags", '{"site": "north"}')

    def at_plant(*words: str) -> list[dict[str, object]]:
        done = server.attempt(*words, "--profile", "plant", "--json", **cloud)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    (twin,) = at_plant("hub", "query", "SELECT * FROM devices WHERE tags.site = 'north'")
    assert twin["deviceId"] == "far-2"
    devices = {row["device"]: row for row in at_plant("hub", "device", "ls")}
    assert devices.keys() == {row["device"] for row in server.rows("hub", "device", "ls")}
    assert (devices["far-1"]["edge"], devices["far-2"]["auth"]) == (True, "certificateAuthority")
    assert {row["module"] for row in at_plant("hub", "module", "ls", "far-1")} == {"$edgeAgent", "$edgeHub"}
    for words in (("device", "show", "far-1"), ("module", "show", "far-1", "$edgeHub")):
        (far,), (near,) = at_plant("hub", *words), server.rows("hub", *words)
        assert far["generationId"] == near["generationId"]
        assert "symmetricKey" not in far["authentication"]  # type: ignore[operator]
        assert "symmetricKey" not in near["authentication"] or not any(near["authentication"]["symmetricKey"].values())
    (shown,) = at_plant("hub", "twin", "far-2")
    assert shown["tags"] == {"site": "north"}


def test_what_a_profile_cannot_be_asked_is_said(server: RunningServer, cloud: Mapping[str, str]) -> None:
    def fails(*words: str, **more: str) -> tuple[int, str]:
        done = server.attempt("hub", *words, "--json", **cloud, **more)
        return done.returncode, json.loads(done.stderr.splitlines()[-1])["error"]

    assert fails("module", "ls", "none", "--profile", "plant") == (3, "fleet.not_at_hub")
    assert fails("query", "SELECT", "--profile", "plant") == (1, "fleet.target_refused")
    assert fails("device", "ls", "--profile", "none")[1] == "fleet.profile_invalid"
    assert fails("device", "ls", "--profile", "cloud")[1] == "fleet.profile_invalid"
    assert fails("device", "ls", "--profile", "plant", "--hub", "x")[1] == "cli.option_not_applicable"
    asks = ("twin", "far-2", "--tags", "{}"), ("device", "disable", "far-2"), ("method", "far-2", "reboot")
    for words in asks:
        assert fails(*words, "--profile", "plant") == (6, "cli.action_needed")
    ours = {name: server.environment[name] for name in ("IOTHUB_CONNECTION_STRING", "PROVISIONING_HOST")}
    assert fails("device", "ls", "--profile", "cloud", **ours)[1] == "fleet.profile_invalid"
    text = server.environment["IOTHUB_CONNECTION_STRING"]
    ca = str(server.endpoints["trust_bundle"])
    done = server.attempt(
        "hub", "device", "ls", "--profile", "cloud", IOTHUB_CONNECTION_STRING=text, REQUESTS_CA_BUNDLE=ca, **cloud
    )
    assert done.returncode == 0, done.stderr


def test_the_same_verbs_change_a_hub_of_a_profile_after_a_yes(server: RunningServer, cloud: Mapping[str, str]) -> None:
    server.run("hub", "device", "create", "far-3")

    def at_plant(*words: str) -> subprocess.CompletedProcess[str]:
        return server.attempt("hub", *words, "--profile", "plant", "--yes", "--json", **cloud)

    changed = json.loads(at_plant("twin", "far-3", "--desired", '{"n": 1}', "--tags", '{"site": "south"}').stdout)
    assert (changed["tags"], changed["properties"]["desired"]["n"]) == ({"site": "south"}, 1)
    assert json.loads(server.run("hub", "twin", "far-3", "--json").stdout)["tags"] == {"site": "south"}
    keys = shown(server, "hub", "device", "key", "far-3")
    for word, status in (("disable", "disabled"), ("enable", "enabled")):
        assert json.loads(at_plant("device", word, "far-3").stdout)["status"] == status
        assert shown(server, "hub", "device", "show", "far-3")["status"] == status
    assert shown(server, "hub", "device", "key", "far-3") == keys  # its keys stay
    away = at_plant("method", "far-3", "reboot", "null", "--response-timeout", "5")
    assert "DeviceNotOnline" in away.stderr
    assert at_plant("device", "disable", "far-none").returncode == 3
    assert at_plant("twin", "far-none", "--tags", "{}").returncode == 3
