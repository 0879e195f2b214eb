"""A server with something of everything, for pictures and for those who judge pages."""

import json
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests

from support.console.browsers import Browser
from support.console.consoles import PASSWORD, Place
from support.pki.pki_builders import a_ca
from support.server.servers import BIRTHMARK, RunningServer, clean_environment

UNPROCESSABLE = 422
PAGES = [
    "/",
    "/devices",
    "/devices?begin=nothing-is-called-so",
    "/enroll",
    "/certificates",
    "/certificates?week=now",
    "/certificates/lists",
    "/certificates/rollover",
    "/certificates/authorities",
    "/certificates/templates",
    "/jobs",
    "/rules",
    "/configurations",
    "/refusals",
    "/refusals?code=dps.disabled",
    "/refusals/not-there",
    "/approvals",
    "/audit",
    "/audit?action=dps.",
    "/alerts",
    "/people",
    "/settings",
    "/settings?begin=est.",
    "/me",
]
HOSTILE = (
    '<script>alert(1)</script><img src=x onerror="alert(1)">',
    "right\u202eot-left\u202c",
    "control\x1b[31m\x07\r\n\t",
    "'\"`${{7*7}}{% raw %}",
    "x" * 4096,
    "日本語の名前\u3000です",
)
"""Names that somebody may give to what pages show."""


def a_full_place(place: Place, directory: Path) -> Place:
    """Let devices come, some of them go, somebody be refused, and people be there."""
    hub = "/hubs/birthmark/devices"
    for name in ("pump-1", "pump-2", "valve-1"):
        place.asked("POST", hub, {"device_id": name})
    place.asked("PATCH", f"{hub}/valve-1", {"enabled": False})
    place.asked("POST", hub, {"device_id": "gateway-1", "thumbprint": "ab" * 32, "iot_edge": True})
    for module in ("camera", "filter"):
        place.asked("POST", "/hubs/birthmark/modules/gateway-1", {"module_id": module})
    root = a_ca("Supplier Root", now=datetime.now(UTC)).certificate.pem()
    for at, is_verified in (("/hubs/birthmark/cas", False), ("/dps/birthmark/cas", True)):
        place.asked("POST", at, {"name": "supplier", "certificate": root, "verified": is_verified})
    place.asked(
        "PATCH",
        "/hubs/birthmark/twins/pump-1",
        {"desired": {"interval": 5, "note": HOSTILE[0]}, "tags": {"plant": "north"}},
    )
    place.asked("POST", "/hubs/birthmark/mail/pump-2", {"text": "open the valve"})
    for name, role in (("anna", "operator"), ("bert", "viewer")):
        place.asked("POST", "/people/users", {"name": name, "role": role})
    environment = clean_environment(BIRTHMARK_DATA=str(place.server.data), HOME=str(directory))
    command = [BIRTHMARK, "swarm", "run", "--devices", "8", "--to", "local", "--duration", "4s", "--interval", "1s"]
    command += ["--from", "est"]
    subprocess.run(command, cwd=directory, env=environment, capture_output=True, check=False, timeout=120)
    swarm = next(one["name"] for one in place.asked("GET", "/devices?begin=device")["items"])
    place.more = [
        f"/devices/{swarm}",
        "/devices/pump-1",
        "/devices/gateway-1",
        "/devices/valve-1",
        f"/take-back?device={swarm}",
    ]
    place.asked("POST", "/webhooks", {"name": "plant", "url": "https://hooks.example.invalid/way", "types": []})
    silence = {"rule": "webhook-failing", "lifetime_s": 3600, "reason": HOSTILE[0]}
    place.asked("POST", "/alerts/silences", silence)
    example = place.server.run("aws", "template", "example").stdout
    hook = "arn:aws:lambda:us-east-1:000000000000:function:plant-allow"
    for name, more in (("plant-north", {}), ("line-7", {"hook": hook, "description": HOSTILE[0]})):
        place.asked("POST", "/aws/templates", {"name": name, "body": example, **more})
    place.more += jobs_of(place.server, place.asked)
    place.more += rules_of(place.server, place.asked)
    place.more += configurations_of(place.asked)
    place.more += ["/people/anna", "/people/anna/remove", *refused(place, swarm), *wanted(place)]
    issued = place.asked("GET", f"/certificates?subject={swarm}")["items"][0]["thumbprint"]
    place.more += [f"/certificates/{issued}", f"/certificates/{issued}/revoke"]
    return place


def jobs_of(server: RunningServer, asked: Callable[..., Any]) -> list[str]:
    """Have a job go out to things that do it, fail, or wait; return its pages."""
    iot, data = server.cloud.boto3(), server.cloud.boto3("iot-jobs-data")
    names = [f"press-{number}" for number in range(12)]
    for name in names:
        iot.create_thing(thingName=name)
    document = {"operation": "install", "version": "2.1", "note": HOSTILE[0]}
    targets = [f"thing/{name}" for name in names]
    settings = {"jobExecutionsRolloutConfig": {"maximumPerMinute": 1000}}
    asked(
        "POST",
        "/aws/jobs",
        {"job": "update-2", "document": document, "targets": targets, "settings": settings, "description": HOSTILE[0]},
    )
    asked("POST", "/aws/jobs", {"job": "interval-5", "document": {}, "targets": targets[:1]})
    deadline = time.monotonic() + 20
    while len(asked("GET", "/aws/jobs/update-2/executions")["items"]) < len(names):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    said = [*[("SUCCEEDED", "done")] * 5, *[("FAILED", HOSTILE[0])] * 2, ("FAILED", "no room"), ("REJECTED", "too old")]
    for name, (status, why) in zip(names, said, strict=False):
        data.update_job_execution(thingName=name, jobId="update-2", status=status, statusDetails={"why": why})
    data.update_job_execution(thingName=names[-1], jobId="update-2", status="IN_PROGRESS")
    asked("POST", "/aws/jobs/update-2/pause")
    return ["/jobs/update-2", "/jobs/update-2?status=FAILED", "/jobs/interval-5"]


def rules_of(server: RunningServer, asked: Callable[..., Any]) -> list[str]:
    """Have a rule that sends, and fails for one message; return its pages."""
    data = server.cloud.boto3("iot-data")
    role = "arn:aws:iam::000000000000:role/rules"
    actions = [
        {"republish": {"topic": "alarms/${topic(2)}", "roleArn": role}},
        {"s3": {"bucketName": "hot", "key": "${key}", "roleArn": role}},
    ]
    sql = "SELECT temperature, key FROM 'presses/+' WHERE temperature > 80"
    payload = {"sql": sql, "awsIotSqlVersion": "2016-03-23", "actions": actions, "description": HOSTILE[0]}
    asked("POST", "/aws/rules", {"rule": "hot", "payload": payload})
    asked("POST", "/aws/rules", {"rule": "quiet", "payload": {"sql": "SELECT * FROM 'x'", "actions": []}})
    asked("POST", "/aws/rules/quiet/disable")
    for number, key in enumerate(["a", "b", "c", "../" + HOSTILE[0]]):
        body = json.dumps({"temperature": 81 + number, "key": key})
        data.publish(topic=f"presses/{number}", qos=1, payload=body.encode())
    deadline = time.monotonic() + 20
    while (row := asked("GET", "/aws/rules/hot"))["sent"] < 7 or row["dead"] != 1:
        assert time.monotonic() < deadline, row
        time.sleep(0.1)
    return ["/rules/hot", "/rules/quiet"]


def configurations_of(asked: Callable[..., Any]) -> list[str]:
    """Have a rollout and a deployment that reaches the gateway; return the page of the rollout."""
    every = "/hubs/birthmark/configurations"
    content = {"deviceContent": {"properties.desired.fan": {"speed": 3, "note": HOSTILE[0]}}}
    fan = {"id": "fan-speed", "content": content, "targetCondition": "tags.plant = 'north'", "priority": 20}
    fan |= {"metrics": {"queries": {"failed": "SELECT deviceId FROM devices WHERE properties.reported.fan = 'failed'"}}}
    rollout = {"percents": [5, 25, 100], "interval_s": 3600, "stop_condition": "properties.reported.fan = 'failed'"}
    asked("POST", every, {"configuration": fan, "rollout": rollout})
    modules = {"$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": {"camera": {}}}}}
    base = {"id": "cameras", "content": {"modulesContent": modules}, "targetCondition": "*", "priority": 1}
    asked("POST", every, {"configuration": base})
    layer = {"$edgeAgent": {"properties.desired.modules.door": {"image": "door:2"}}}
    below = {"id": "doors", "content": {"modulesContent": layer}, "targetCondition": "*", "priority": 0}
    asked("POST", every, {"configuration": below})
    deadline = time.monotonic() + 20
    while {one["id"]: one["applied"] for one in asked("GET", every)["items"]}["cameras"] < 1:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return [f"/configurations/birthmark/{name}" for name in ("fan-speed", "cameras")]


def refused(place: Place, device: str) -> list[str]:
    """Have a device that is known refused, by a password that is none of anybody's; return its page."""
    url = place.server.endpoints["est"]["url"]
    for name in (device, "press-17"):
        asked = {"auth": (name, "a wrong password"), "data": b"", "timeout": 30}
        requests.post(f"{url}/simpleenroll", verify=place.server.endpoints["trust_bundle"], **asked)  # type: ignore[arg-type]
    deadline = time.monotonic() + 20
    while not (found := place.asked("GET", "/refusals")["items"]):  # it is written beside what is served
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return [f"/refusals/{found[0]['id']}"]


def wanted(place: Place) -> list[str]:
    """Have somebody ask for what takes a second person."""
    place.asked("POST", "/people/users", {"name": "carla", "role": "admin"})
    code = place.asked("POST", "/people/users/carla/invitation")["code"]
    browser = Browser(place.url)
    browser.submit("/invitation", code=code, password=PASSWORD, again=PASSWORD)
    assert browser.operator("POST", "/ca/rollover/start").status_code == UNPROCESSABLE
    return []
