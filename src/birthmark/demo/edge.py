"""Gateway with two modules: its deployment, the modules' identities, and a certificate renewal by the hub."""

import json
import subprocess
import threading
import time
from typing import Any

from birthmark.demo.harness import NotProvenError, Stage, app_path
from birthmark.pki.certificates import parse_pem

TITLE = "An IoT Edge gateway: two modules, one configuration, certificates renewed by the hub"
ABOUT = (
    "The gateway registers with its secure element. Its modules connect with Microsoft's SDK and need no registration."
)
_CAMERA, _DOOR = "camera", "door"
_PATIENCE_S = 90
_MESSAGES_S = 4


def play(stage: Stage) -> None:
    """Run the scenario."""
    stage.say(
        "A gateway leaves the factory with a key in its secure element and the manufacturer's certificate for it."
    )
    stage.source("birthmark", "chip", "simulate", "chip", "--chip", "se050")
    stage.birthmark("chip", "cert", "0xF0000100", "--out", "born.pem")
    name = (parse_pem(stage.path("born.pem").read_bytes()).subject_cn or "").lower()

    stage.say("Enroll it as an IoT Edge device; the policy `device` issues its certificates.")
    stage.serve()
    stage.birthmark("device", "enroll", "--cert", "born.pem", "--edge", "--issue", "device")

    stage.say("It registers with a certificate request, and receives its certificate for the hub.")
    _configure(stage, name)
    first = stage.row("agent", "apply", "--root", "device")
    stage.note(f"certificate {str(first['thumbprint'])[:16]}…, issued by {first['issuer']}")
    modules = [row["module"] for row in stage.rows("hub", "module", "ls", name)]
    stage.expect(modules, ["$edgeAgent", "$edgeHub"], "initial modules")

    gateway = _begin(stage, name)
    _speak(stage, name, gateway)
    renewed = _renew(stage, name, gateway, first["thumbprint"])

    stage.say(
        "The operator removes the camera from the configuration: the camera module stops, the door module keeps "
        "running."
    )
    _apply(stage, name, _modules(2, without=_CAMERA))
    _wait_for_lines(stage, gateway, f"{_CAMERA} ends", "keeps to its configuration")
    states = {row["module"]: row["state"] for row in stage.rows("hub", "module", "ls", name)}
    stage.expect(states[_DOOR], "connected", _DOOR)

    counts = _count_messages(stage, name)
    hub = stage.endpoints["iothub"]["host"]
    stage.prove_at_hub(name, renewed, hub, where="a file; enrolled with its chip")
    stage.prove_module(f"{name}/{_CAMERA}", "its own symmetric key", "none", hub, counts[_CAMERA])
    own = parse_pem(stage.path(f"device/{_DOOR}.pem").read_bytes()).thumbprint.hex()
    stage.prove_module(f"{name}/{_DOOR}", "a key and certificate of its own", own, hub, counts[_DOOR])


def _begin(stage: Stage, name: str) -> "subprocess.Popen[str]":
    """Set the gateway's deployment and start its program, which starts the modules."""
    stage.say("An operator deploys two modules: one with a symmetric key, one with a certificate.")
    _apply(stage, name, _modules(2))

    stage.say(
        "The gateway receives its configuration, creates an identity for each module in the hub, and starts them."
    )
    gateway = _start(stage)
    _wait_for_lines(
        stage,
        gateway,
        f"{_CAMERA} starts, and proves itself by a key",
        f"{_DOOR} starts, and proves itself by a certificate",
        f"{_CAMERA} sends every 2 s",
        f"{_DOOR} sends every 2 s",
        "keeps to its configuration",
    )
    kinds = {row["module"]: (row["state"], row["auth"]) for row in stage.rows("hub", "module", "ls", name)}
    stage.expect(kinds[_CAMERA], ("connected", "sas"), _CAMERA)
    stage.expect(kinds[_DOOR], ("connected", "selfSigned"), _DOOR)
    return gateway


def _speak(stage: Stage, name: str, gateway: "subprocess.Popen[str]") -> None:
    """Show that each module has its own twin, methods and messages."""
    stage.say(
        "Each module has its own twin, methods and messages. A desired property of one module does not affect the "
        "other."
    )
    _apply(stage, name, {_CAMERA: {"properties.desired": {"interval_s": 0.5}}})
    _wait_for_lines(stage, gateway, f"{_CAMERA} sends every 0.5 s")
    stage.expect(_reported(stage, f"{name}/{_CAMERA}"), 0.5, f"reported by {_CAMERA}")
    stage.expect(_reported(stage, f"{name}/{_DOOR}"), 2, f"reported by {_DOOR}")
    for module in (_CAMERA, _DOOR):
        answer = stage.row("hub", "method", f"{name}/{module}", "hello", '"you"')
        stage.expect(answer, {"status": 200, "payload": {"module": module, "heard": "you"}}, f"response of {module}")


def _renew(stage: Stage, name: str, gateway: "subprocess.Popen[str]", first: str) -> str:
    """Have the hub issue the gateway's next certificate while the modules run; return its thumbprint."""
    stage.say(
        "The gateway renews its certificate at the hub, authenticated with the current one. Its modules keep running."
    )
    before = _count_messages(stage, name)
    stage.birthmark("agent", "renew", "--root", "device")
    heard = _wait_for_lines(stage, gateway, f"asked by it for its modules: $edgeAgent, $edgeHub, {_CAMERA}, {_DOOR}")
    (renewed,) = [line.removeprefix("certificate ") for line in heard if line.startswith("certificate ")]
    stage.expect(renewed != first, True, "new certificate")
    (device,) = [row for row in stage.rows("hub", "device", "ls") if row["device"] == name]
    stage.expect(device["thumbprint"], renewed, "thumbprint in the hub")
    exported = stage.birthmark("server", "audit", "export", "--rows").stdout.splitlines()
    by_hub = [row for row in map(json.loads, exported) if row.get("action") == "iothub.credential_issue"]
    stage.expect([row["detail"]["thumbprint"] for row in by_hub], [renewed], "issued by the hub")
    with stage.console.status("   waiting for messages of its modules"):
        time.sleep(_MESSAGES_S)
    now = _count_messages(stage, name)
    stage.expect(all(now[module] > count for module, count in before.items()), True, "both modules continued to send")
    return renewed


def _configure(stage: Stage, name: str) -> None:
    """Write the gateway's configuration: bootstrap by secure element, certificate by Azure's API."""
    printed = stage.birthmark("env", "--format", "aziot", "--registration-id", name).stdout
    token = f"pkcs11:token={stage.environment['BIRTHMARK_TOKEN']}"
    pin = f"pin-source=file:{stage.environment['BIRTHMARK_PIN_FILE']}"
    ours = (
        'method = "azure"\n'
        f'bootstrap_identity_cert = "file://{stage.path("born.pem")}"\n'
        f'bootstrap_identity_pk = "{token};object=sss:F0000100?{pin}"'
    )
    text = printed[: printed.index("[cert_issuance")].replace('method = "est"', ours)
    config = stage.path("device/etc/aziot/config.toml")
    config.parent.mkdir(parents=True)
    config.write_text(f'{text}[aziot_keys]\npkcs11_lib_path = "{stage.environment["BIRTHMARK_PKCS11_MODULE"]}"\n')


def _modules(interval_s: float, *, without: str = "") -> dict[str, Any]:
    """Return the configuration content for the gateway as a deployment manifest."""
    kinds = {_CAMERA: "key", _DOOR: "certificate"}
    kept = {name: {"program": "edge_module.py", "proof": kind} for name, kind in kinds.items() if name != without}
    routes = {"up": "FROM /messages/* INTO $upstream"}
    return {
        "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": kept}},
        "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": routes}},
        **{name: {"properties.desired": {"interval_s": interval_s}} for name in kept},
    }


def _apply(stage: Stage, name: str, modules: dict[str, Any]) -> None:
    stage.path("content.json").write_text(json.dumps({"modulesContent": modules}, indent=2))
    stage.run("python", str(app_path("edge_configure.py")), name, "content.json")


def _start(stage: Stage) -> "subprocess.Popen[str]":
    """Start the gateway's program; its modules write to the same output."""
    https = f"{stage.endpoints['iothub']['host']}:{stage.endpoints['iothub']['https_port']}"
    program = ("python", str(app_path("edge_gateway.py")), "device/etc/aziot/config.toml", "device")
    return stage.start(*program, log="gateway.log", environment={"HUB_HTTPS": https})


def _wait_for_lines(stage: Stage, gateway: "subprocess.Popen[str]", *wanted: str) -> list[str]:
    """Read the output until all wanted lines have appeared in any order, and return the lines."""
    missing, heard = set(wanted), list[str]()
    overdue = threading.Timer(_PATIENCE_S, gateway.kill)
    overdue.start()
    try:
        for line in gateway.stdout or ():
            heard.append(line.strip())
            stage.note(heard[-1])
            missing.discard(heard[-1])
            if not missing:
                return heard
    finally:
        overdue.cancel()
    raise NotProvenError(expected=f"the gateway to print {', '.join(sorted(missing))}", found="its end")


def _reported(stage: Stage, name: str) -> object:
    return stage.row("hub", "twin", name)["properties"]["reported"].get("interval_s")


def _count_messages(stage: Stage, name: str) -> dict[str, int]:
    """Return the number of messages at the hub per module."""
    counts = dict.fromkeys((_CAMERA, _DOOR), 0)
    for row in stage.rows("hub", "messages", name):
        counts[row["system"]["iothub-connection-module-id"]] += 1
    return counts
