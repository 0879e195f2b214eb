"""What deploy/ has is what the tools that read it take, and says what this version says."""

import re
import shutil
import subprocess
import tomllib
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

import birthmark
from birthmark.cli.command_tree import leaves
from birthmark.net.proxy_protocol import networks_of
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
    assert ("server", "node", "join") in COMMANDS
    assert "birthmark server node join" in joining["args"][0]


def test_no_secret_stands_in_what_is_applied() -> None:
    for container in (*pod()["containers"], *pod()["initContainers"]):
        by_value = {one["name"] for one in container["env"] if "value" in one}
        assert by_value == {"BIRTHMARK_DATA", "BIRTHMARK_LOG"}


def test_every_service_leads_to_a_port_of_the_pods() -> None:
    names = {one["name"] for one in pod()["containers"][0]["ports"]}
    for service in (one for one in OBJECTS if one["kind"] == "Service"):
        assert {one["targetPort"] for one in service["spec"]["ports"]} <= names


def test_haproxy_takes_its_configuration_also_while_a_machine_has_no_address() -> None:
    program = shutil.which("haproxy") or "/usr/sbin/haproxy"
    assert Path(program).exists(), "HAProxy is missing: run scripts/test, which installs it"
    done = subprocess.run(
        [program, "-c", "-f", str(DEPLOY / "haproxy.cfg")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_balancer_of_compose_is_one_that_the_server_believes(tmp_path: Path) -> None:
    (network,) = COMPOSE["networks"]["default"]["ipam"]["config"]
    proxies = networks_of(settings_of((DEPLOY / "server.toml").read_text(), tmp_path).proxies)
    assert any(IPv4Network(network["subnet"]).subnet_of(one) for one in proxies if isinstance(one, IPv4Network))


def test_a_joining_machine_of_compose_reads_its_invitation_from_standard_input(tmp_path: Path) -> None:
    (script,) = COMPOSE["services"]["two-joins"]["command"]
    place = tmp_path / "invitation.json"
    told = script.replace("/tmp/invitation.json", str(place)).partition("birthmark ")[0] + f"stat -c %a {place}"
    done = subprocess.run(["sh", "-c", told], input="{}", capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), place.read_text()) == ("600", "{}")
    assert tuple(script.rpartition("birthmark ")[2].split()[:3]) in COMMANDS


@pytest.mark.parametrize(
    ("host", "there", "comes"),
    [
        ("birthmark-0", [], "begins"),
        ("birthmark-1", ["invitation"], "joins"),
        ("birthmark-1", ["invitation", "machine"], "joins"),
        ("birthmark-1", ["machine"], "begins"),
        ("birthmark-1", [], "is told"),
    ],
)
def test_a_pod_joins_by_the_invitation_and_begins_without_it_once_it_has(
    host: str, there: list[str], comes: str, tmp_path: Path
) -> None:
    for name in ("data/server", "invitation", "tmp", "bin"):
        (tmp_path / name).mkdir(parents=True)
    if "invitation" in there:
        (tmp_path / "invitation" / "invitation.json").write_text("{}")
    if "machine" in there:
        (tmp_path / "data" / "server" / "machine.json").write_text("{}")
    for name, says in (("hostname", f"echo {host}"), ("birthmark", f'stat -c %a "$4" > {tmp_path}/joined')):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{says}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (script,) = pod()["initContainers"][0]["args"]
    script = re.sub(r" /(data|invitation|tmp)/", rf" {tmp_path}/\1/", script)
    done = subprocess.run(
        ["sh", "-c", script], env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )
    joined = tmp_path / "joined"
    assert (done.returncode == 0) == (comes != "is told"), done.stderr
    assert joined.exists() == (comes == "joins")
    assert not joined.exists() or joined.read_text().strip() == "600", "a secret that nobody else reads"


def test_what_services_name_is_there() -> None:
    for kind in ("configs", "secrets", "volumes"):
        named = set()
        for service in COMPOSE["services"].values():
            for one in service.get(kind, ()):
                named.add(one["source"] if isinstance(one, dict) else one.partition(":")[0])
        assert named == set(COMPOSE[kind])


def test_files_that_are_named_are_there() -> None:
    files = [one["file"] for kind in ("configs", "secrets") for one in COMPOSE[kind].values() if "file" in one]
    assert {one for one in files if not (DEPLOY / one).exists()} == {"postgres.password"}  # which is said to be made


def test_no_script_installs_a_package_without_a_hash() -> None:
    scripts = (DEPLOY.parent / "scripts" / name for name in ("setup.sh", "bench"))
    text = "".join(path.read_text() for path in scripts).replace("\\\n", " ")
    found = [line for line in text.splitlines() if "pip install" in line]
    assert found
    assert not [one for one in found if "--require-hashes" not in one and "--no-deps --no-build-isolation" not in one]


def test_no_image_is_built_from_packages_or_base_images_without_digests() -> None:
    for path in (*DEPLOY.rglob("*ontainerfile*"), *DEPLOY.rglob("*ockerfile*")):
        lines = path.read_text().splitlines()
        assert not [line for line in lines if re.search(r"\bpip3? install\b", line) and "--require-hashes" not in line]
        bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
        assert all(base == "scratch" or "@sha256:" in base for base in bases), path


def test_compose_runs_the_image_of_this_version_and_builds_none() -> None:
    birthmark_services = [one for name, one in COMPOSE["services"].items() if name in ("one", "two", "two-joins")]
    assert {one["image"] for one in birthmark_services} == {f"birthmark:{birthmark.__version__}"}
    assert not any("build" in one for one in COMPOSE["services"].values())
