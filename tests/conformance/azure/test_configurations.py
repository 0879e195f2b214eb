"""Automatic device management by the vendor's own SDK: configurations of devices and modules, and their metrics."""

import pytest

from birthmark.testing.cloud import Cloud
from support.azure.clients import run_python

pytestmark = pytest.mark.system

MANAGER = """
import base64, os, sys, time
from azure.iot.hub import IoTHubConfigurationManager, IoTHubRegistryManager
from azure.iot.hub.models import (
    Configuration, ConfigurationContent, ConfigurationMetrics, ConfigurationQueriesTestInput, QuerySpecification,
    Twin, TwinProperties,
)
text = os.environ["IOTHUB_CONNECTION_STRING"]
manager = IoTHubConfigurationManager.from_connection_string(text)
registry = IoTHubRegistryManager.from_connection_string(text)
key = base64.b64encode(b"k" * 32).decode()

def status_of(act):
    try:
        act()
    except Exception as error:
        return getattr(getattr(error, "response", None), "status_code", type(error).__name__)
    return "no"

def until(read, wanted):
    for _ in range(100):
        if (found := read()) == wanted:
            return found
        time.sleep(0.1)
    sys.exit(f"{found!r} is not {wanted!r}")

def desired(name):
    return {k: v for k, v in registry.get_twin(name).properties.desired.items() if not k.startswith("$")}

def states(name):
    found = registry.get_twin(name).additional_properties.get("configurations", {})
    return {k: v["status"] for k, v in found.items()}

def device(name, **tags):
    registry.create_device_with_sas(name, key, key, "enabled")
    if tags:
        registry.update_twin(name, Twin(tags=tags), "*")

def configuration(name, condition, priority=0, metrics=None, **values):
    content = ConfigurationContent(device_content={f"properties.desired.{k}": v for k, v in values.items()})
    return Configuration(id=name, content=content, target_condition=condition, priority=priority,
        labels={"team": "plant"}, metrics=ConfigurationMetrics(queries=metrics or {}))

def rows(query):
    return sorted(one.device_id for one in registry.query_iot_hub(QuerySpecification(query=query)).items)
"""


def run(cloud: Cloud, body: str) -> list[str]:
    done = run_python(MANAGER + body, cloud.environment())
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout.splitlines()


def test_a_configuration_sets_the_desired_properties_of_the_devices_it_targets(cloud: Cloud) -> None:
    assert run(
        cloud,
        """
device("fleet-1", site="north")
device("fleet-2", site="south")
made = manager.create_configuration(configuration("north-fan", "tags.site = 'north'", 5, fan=3))
print(made.id, made.priority, made.target_condition, made.labels, made.content.device_content)
until(lambda: desired("fleet-1"), {"fan": 3})
print(states("fleet-1"), desired("fleet-2"), states("fleet-2"))
device("fleet-3", site="north")
until(lambda: desired("fleet-3"), {"fan": 3})
registry.update_twin("fleet-1", Twin(tags={"site": "south"}), "*")
until(lambda: (desired("fleet-1"), states("fleet-1")), ({}, {}))
queries = manager.get_configuration("north-fan").system_metrics.queries
print(rows(queries["targetedCount"]), rows(queries["appliedCount"]))
manager.delete_configuration("north-fan")
until(lambda: (desired("fleet-3"), states("fleet-3")), ({}, {}))
print(status_of(lambda: manager.get_configuration("north-fan")))
""",
    ) == [
        "north-fan 5 tags.site = 'north' {'team': 'plant'} {'properties.desired.fan': 3}",
        "{'north-fan': 'Applied'} {} {}",
        "['fleet-3'] ['fleet-3']",
        "404",
    ]


def test_the_higher_priority_wins_by_path_and_the_next_one_takes_over(cloud: Cloud) -> None:
    assert run(
        cloud,
        """
device("prio-1", line="a")
manager.create_configuration(configuration("prio-low", "tags.line = 'a'", 1, speed=1, mode="eco"))
until(lambda: desired("prio-1"), {"speed": 1, "mode": "eco"})
manager.create_configuration(configuration("prio-high", "tags.line = 'a'", 9, speed=9))
until(lambda: desired("prio-1"), {"speed": 9, "mode": "eco"})
print(states("prio-1"))
registry.update_twin("prio-1", Twin(properties=TwinProperties(desired={"speed": 0, "own": 1})), "*")
until(lambda: desired("prio-1"), {"speed": 9, "mode": "eco", "own": 1})
changed = manager.get_configuration("prio-high")
changed.target_condition = "tags.line = 'b'"
changed = manager.update_configuration(changed, changed.etag)
until(lambda: desired("prio-1"), {"speed": 1, "mode": "eco", "own": 1})
print(changed.target_condition, changed.priority, states("prio-1"))
for name in ("prio-low", "prio-high"):
    manager.delete_configuration(name)
until(lambda: (desired("prio-1"), states("prio-1")), ({"own": 1}, {}))
""",
    ) == ["{'prio-low': 'Applied', 'prio-high': 'Applied'}", "tags.line = 'b' 9 {'prio-low': 'Applied'}"]


def test_a_module_configuration_targets_module_twins(cloud: Cloud) -> None:
    assert run(
        cloud,
        """
device("mods-1")
registry.create_module_with_sas("mods-1", "camera", "me", key, key)
one = Configuration(id="cameras", priority=1, target_condition="from devices.modules where moduleId = 'camera'",
    content=ConfigurationContent(module_content={"properties.desired.rate": 5}))
manager.create_configuration(one)
def module(name):
    found = registry.get_module_twin("mods-1", name)
    return found.properties.desired.get("rate"), found.additional_properties.get("configurations")
until(lambda: module("camera"), (5, {"cameras": {"status": "Applied"}}))
registry.create_module_with_sas("mods-1", "door", "me", key, key)
print(module("door"))
queries = manager.get_configuration("cameras").system_metrics.queries
print(rows(queries["targetedCount"]), rows(queries["appliedCount"]))
manager.delete_configuration("cameras", "*")
until(lambda: module("camera"), (None, None))
""",
    ) == ["(None, None)", "['mods-1'] ['mods-1']"]


def test_metrics_have_results_and_queries_are_tried_before(cloud: Cloud) -> None:
    assert run(
        cloud,
        """
for number in range(3):
    device(f"metric-{number}", group="metrics")
one = configuration("metrics", "tags.group = 'metrics'", 1, x=1,
    metrics={"withX": "SELECT deviceId FROM devices WHERE properties.desired.x = 1 AND tags.group = 'metrics'"})
manager.create_configuration(one)
def results():
    found = manager.get_configuration("metrics")
    return found.system_metrics.results
until(results, {"targetedCount": 3, "appliedCount": 3})
print(manager.get_configuration("metrics").metrics.queries)
tried = manager.test_configuration_queries(ConfigurationQueriesTestInput(
    target_condition="tags.x = 'y' and", custom_metric_queries={"a": "SELECT deviceId FROM devices", "b": "SELECT x"}))
print(bool(tried.target_condition_error), sorted(tried.custom_metric_query_errors))
right = manager.test_configuration_queries(ConfigurationQueriesTestInput(target_condition="tags.x = 'y'"))
print(repr(right.target_condition_error), right.custom_metric_query_errors)
print([one.id for one in manager.get_configurations(20) if one.id == "metrics"])
manager.delete_configuration("metrics")
""",
    ) == [
        "{'withX': \"SELECT deviceId FROM devices WHERE properties.desired.x = 1 AND tags.group = 'metrics'\"}",
        "True ['b']",
        "'' {}",
        "['metrics']",
    ]


def test_mistakes_have_the_statuses_of_azure(cloud: Cloud) -> None:
    assert run(
        cloud,
        """
made = manager.create_configuration(configuration("mistakes", "tags.m = 1", 1, x=1))
print(status_of(lambda: manager.create_configuration(configuration("mistakes", "", 1, x=1))))
print(status_of(lambda: manager.update_configuration(made, "AAAA")))
changed = manager.get_configuration("mistakes")
changed.content.device_content = {"properties.desired.y": 1}
print(status_of(lambda: manager.update_configuration(changed, "*")))
print(status_of(lambda: manager.create_configuration(configuration("Upper", "", 1, x=1))))
print(status_of(lambda: manager.create_configuration(configuration("broken", "tags.", 1, x=1))))
print(status_of(lambda: manager.create_configuration(configuration("away", "connectionState = 'Connected'", 1, x=1))))
print(status_of(lambda: manager.create_configuration(Configuration(id="empty", content=ConfigurationContent()))))
print([status_of(lambda: manager.delete_configuration(*one)) for one in (("mistakes", "AAAA"), ("none",))])
manager.delete_configuration("mistakes", made.etag)
""",
    ) == ["409", "412", "400", "400", "400", "400", "400", "[412, 404]"]


DEPLOYMENTS = """
AGENT = {"schemaVersion": "1.1", "runtime": {"type": "docker", "settings": {}},
    "systemModules": {"edgeAgent": {"type": "docker", "settings": {"image": "agent:1.5"}},
        "edgeHub": {"type": "docker", "status": "running", "restartPolicy": "always",
            "settings": {"image": "hub:1.5"}}},
    "modules": {"camera": {"type": "docker", "status": "running", "restartPolicy": "always",
        "settings": {"image": "camera:1"}}}}
HUB = {"schemaVersion": "1.1", "routes": {"up": "FROM /messages/* INTO $upstream"},
    "storeAndForwardConfiguration": {"timeToLiveSecs": 7200}}

def edge(name, **tags):
    registry.protocol.devices.create_or_update_identity(name, {"deviceId": name, "status": "enabled",
        "capabilities": {"iotEdge": True}, "authentication": {"type": "sas",
        "symmetricKey": {"primaryKey": key, "secondaryKey": key}}})
    registry.update_twin(name, Twin(tags=tags), "*")

def deployment(name, priority, condition, **content):
    return Configuration(id=name, priority=priority, target_condition=condition,
        content=ConfigurationContent(modules_content={k.replace("_", "$"): v for k, v in content.items()}))

def module(device, name):
    return registry.get_module_twin(device, name)

def modules(device):
    return sorted(one.module_id for one in registry.get_modules(device))
"""


def test_an_edge_deployment_reaches_the_modules_of_the_devices_it_targets(cloud: Cloud) -> None:
    assert run(
        cloud,
        DEPLOYMENTS
        + """
edge("edge-1", site="e1")
manager.create_configuration(deployment("base", 1, "tags.site = 'e1'", _edgeAgent={"properties.desired": AGENT},
    _edgeHub={"properties.desired": HUB}, camera={"properties.desired": {"rate": 5}}))
until(lambda: modules("edge-1"), ["$edgeAgent", "$edgeHub", "camera"])
until(lambda: module("edge-1", "$edgeAgent").additional_properties.get("configurations"),
    {"base": {"status": "Applied"}})
print(module("edge-1", "$edgeAgent").properties.desired["modules"]["camera"]["settings"])
print(module("edge-1", "$edgeHub").properties.desired["routes"], module("edge-1", "camera").properties.desired["rate"])
manager.create_configuration(deployment("layer", 5, "*", _edgeAgent={"properties.desired.modules.door":
    {"type": "docker", "settings": {"image": "door:2"}}}, door={"properties.desired.open": True}))
until(lambda: modules("edge-1"), ["$edgeAgent", "$edgeHub", "camera", "door"])
until(lambda: module("edge-1", "door").properties.desired.get("open"), True)
until(lambda: sorted(module("edge-1", "$edgeAgent").properties.desired["modules"]), ["camera", "door"])
found = manager.get_configuration("layer").system_metrics
print(sorted(found.queries), [rows(found.queries[name]) for name in ("targetedCount", "appliedCount")])
manager.delete_configuration("layer")
until(lambda: modules("edge-1"), ["$edgeAgent", "$edgeHub", "camera"])
until(lambda: sorted(module("edge-1", "$edgeAgent").properties.desired["modules"]), ["camera"])
manager.delete_configuration("base")
until(lambda: module("edge-1", "$edgeAgent").additional_properties.get("configurations"), None)
print(modules("edge-1"), sorted(module("edge-1", "$edgeAgent").properties.desired["modules"]))
registry.delete_device("edge-1")
""",
    ) == [
        "{'image': 'camera:1'}",
        "{'up': 'FROM /messages/* INTO $upstream'} 5",
        "['appliedCount', 'reportedFailedCount', 'reportedSuccessfulCount', 'targetedCount'] [['edge-1'], ['edge-1']]",
        "['$edgeAgent', '$edgeHub', 'camera'] ['camera']",
    ]


def test_applied_content_replaces_the_modules_of_a_device(cloud: Cloud) -> None:
    assert run(
        cloud,
        DEPLOYMENTS
        + """
edge("edge-2")
def apply(**content):
    manager.apply_configuration_on_edge_device("edge-2", ConfigurationContent(modules_content=content))
apply(**{"$edgeAgent": {"properties.desired": AGENT}, "$edgeHub": {"properties.desired": HUB}})
print(modules("edge-2"))
other = {**AGENT, "modules": {"lamp": AGENT["modules"]["camera"]}}
apply(**{"$edgeAgent": {"properties.desired": other}, "$edgeHub": {"properties.desired": HUB}})
print(modules("edge-2"))
registry.delete_device("edge-2")
""",
    ) == ["['$edgeAgent', '$edgeHub', 'camera']", "['$edgeAgent', '$edgeHub', 'lamp']"]
