"""What deploy/ has is what the tools that read it take, and says what this version says."""

import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

import birthmark
from birthmark.cli.tree import leaves
from birthmark.server.settings import Settings, read_settings

DEPLOY = Path(__file__).parents[2] / "deploy"
ENGINES = {
    "BIRTHMARK_DATABASE": "postgresql://birthmark@db.example/birthmark",
    "BIRTHMARK_BUS": "nats://n.example:4222",
}
OBJECTS: list[dict[str, Any]] = list(yaml.safe_load_all((DEPLOY / "kubernetes" / "birthmark.yaml").read_text()))
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
COMMANDS = {words for words, _ in leaves()}


def of_kind(kind: str) -> dict[str, Any]:
    (found,) = (one for one in OBJECTS if one["kind"] == kind)
    return found


def pod() -> dict[str, Any]:
    found: dict[str, Any] = of_kind("StatefulSet")["spec"]["template"]["spec"]
    return found


def settings_of(text: str, tmp_path: Path) -> Settings:
    path = tmp_path / "server.toml"
    path.write_text(text)
    return read_settings(path, ENGINES)


@pytest.mark.parametrize("version", ["1.30", "1.33"])
@pytest.mark.parametrize("thing", OBJECTS, ids=lambda thing: f"{thing['kind']}-{thing['metadata']['name']}")
def test_kubernetes_takes_each_manifest(thing: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(thing, version, strict=True)


def test_the_configuration_of_each_place_is_one_of_this_version(tmp_path: Path) -> None:
    for text in ((DEPLOY / "server.toml").read_text(), of_kind("ConfigMap")["data"]["server.toml"]):
        found = settings_of(text, tmp_path)
        assert found.is_shared
        assert found.listen == ("0.0.0.0",)
        assert found.host == tomllib.loads(text)["host"]


def test_pods_are_of_this_version_and_their_ports_are_the_servers() -> None:
    (server,), (joining,) = pod()["containers"], pod()["initContainers"]
    assert {server["image"], joining["image"]} == {f"birthmark:{birthmark.__version__}"}
    ports = Settings().ports
    assert {one["name"]: one["containerPort"] for one in server["ports"]} == {
        "mqtt": ports.mqtt,
        "https": ports.https,
        "est": ports.est,
        "health": ports.health,
    }
    assert (server["args"][0],) in COMMANDS
    assert ("server", "machine", "join") in COMMANDS
    assert "birthmark server machine join" in joining["args"][0]


def test_no_secret_stands_in_what_is_applied() -> None:
    for container in (*pod()["containers"], *pod()["initContainers"]):
        by_value = {one["name"] for one in container["env"] if "value" in one}
        assert by_value == {"BIRTHMARK_DATA", "BIRTHMARK_LOG"}


def test_every_service_leads_to_a_port_of_the_pods() -> None:
    names = {one["name"] for one in pod()["containers"][0]["ports"]}
    for service in (one for one in OBJECTS if one["kind"] == "Service"):
        assert {one["targetPort"] for one in service["spec"]["ports"]} <= names


def test_haproxy_takes_its_configuration(tmp_path: Path) -> None:
    program = shutil.which("haproxy") or "/usr/sbin/haproxy"
    assert Path(program).exists(), "HAProxy is missing: run scripts/test, which installs it"
    text = (DEPLOY / "haproxy.cfg").read_text()
    path = tmp_path / "haproxy.cfg"  # there are no machines of these names here
    path.write_text(text.replace(" one:", " 127.0.0.2:").replace(" two:", " 127.0.0.3:"))
    done = subprocess.run([program, "-c", "-f", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_services_name_is_there() -> None:
    for kind in ("configs", "secrets", "volumes"):
        named = set()
        for service in COMPOSE["services"].values():
            for one in service.get(kind, ()):
                named.add(one["source"] if isinstance(one, dict) else one.partition(":")[0])
        assert named == set(COMPOSE[kind])
    for service in COMPOSE["services"].values():
        if "command" in service and "machine" in service["command"]:
            assert tuple(service["command"][:3]) in COMMANDS


def test_files_that_are_named_are_there() -> None:
    files = [one["file"] for kind in ("configs", "secrets") for one in COMPOSE[kind].values() if "file" in one]
    assert {one for one in files if not (DEPLOY / one).exists()} == {"postgres.password"}  # which is said to be made
    assert (DEPLOY.parent / COMPOSE["x-server"]["build"]["dockerfile"]).exists()
