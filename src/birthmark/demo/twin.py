"""EdgeLock SE050 and hub-to-device communication: a twin, a direct method, a queued message."""

import json
import subprocess
import threading
from typing import Any

from birthmark.demo.harness import NotProvenError, Stage, app_path
from birthmark.pki.certificates import parse_pem

TITLE = "EdgeLock SE050 ⇄ Azure IoT Hub: twin, method, message"
ABOUT = "An operator changes a device, restarts it, and sends it a message. The device uses Microsoft's unmodified SDK."
_NOT_THERE = 3
_PATIENCE_S = 60


def play(stage: Stage) -> None:
    """Run the scenario."""
    stage.say("Enroll a gateway with a key in its secure element in the local cloud.")
    stage.source("birthmark", "chip", "simulate", "chip", "--chip", "se050")
    stage.birthmark("chip", "cert", "0xF0000100", "--out", "device.pem")
    stage.birthmark("chip", "refkey", "0xF0000100", "--out", "device.key")
    certificate = parse_pem(stage.path("device.pem").read_bytes())
    name = (certificate.subject_cn or "").lower()
    stage.serve()
    stage.birthmark("device", "enroll", "--cert", "device.pem")

    stage.say("It registers, connects, and reports its sending interval.")
    stage.environment |= {
        "DPS_X509_REGISTRATION_ID": name,
        "X509_CERT_FILE": "device.pem",
        "X509_KEY_FILE": "device.key",
    }
    device = _start(stage)
    _wait_for_lines(stage, device, "ready")
    stage.expect(_reported(stage, name), {"boots": 1, "interval_s": 5.0}, "reported by the device")

    stage.say(
        "An operator sets another interval as a desired property. The device receives it, applies it, and reports it."
    )
    _desire(stage, name, 0.5)
    _wait_for_lines(stage, device, "sending every 0.5 s")
    stage.expect(_reported(stage, name), {"boots": 1, "interval_s": 0.5}, "reported by the device")

    stage.say("A direct method restarts it. It then applies the desired properties of its twin again.")
    answer = stage.row("hub", "method", name, "restart")
    stage.expect(answer, {"status": 200, "payload": "restarting"}, "response of the device")
    _wait_for_lines(stage, device, "ready")
    stage.expect(_reported(stage, name), {"boots": 2, "interval_s": 0.5}, "reported by the device")

    stage.say("The device is offline. A direct method fails; a message and the desired properties wait for the device.")
    device.terminate()
    device.wait()
    failed = stage.birthmark("hub", "method", name, "restart", may_fail=True)
    stage.expect(failed.returncode, _NOT_THERE, "exit code of the call")
    _desire(stage, name, 2)
    sent = stage.row("hub", "c2d", name, "open the valve", "--feedback", "full")
    stage.expect(len(stage.rows("hub", "c2d", name)), 1, "queued messages")

    stage.say("It reconnects and receives both, and the sender gets feedback.")
    device = _start(stage)
    _wait_for_lines(stage, device, "message: open the valve", "sending every 2 s", "ready")
    stage.expect(_wait_for_feedback(stage), {sent["message"]: "Success"}, "feedback for the message")
    stage.expect(_reported(stage, name), {"boots": 3, "interval_s": 2}, "reported by the device")
    stage.expect(len(stage.rows("hub", "c2d", name)), 0, "queued messages")
    stage.prove_at_hub(name, certificate.thumbprint.hex(), stage.endpoints["iothub"]["host"])


def _start(stage: Stage) -> "subprocess.Popen[str]":
    """Start the device program with the key in the chip."""
    program = ("python", str(app_path("azure_twin.py")))
    return stage.start("birthmark", "chip", "exec", "--", *program, log="device.log")


def _wait_for_lines(stage: Stage, device: "subprocess.Popen[str]", *wanted: str) -> None:
    """Read the device's output until all wanted lines have appeared, in any order."""
    missing = set(wanted)
    overdue = threading.Timer(_PATIENCE_S, device.kill)
    overdue.start()
    try:
        for line in device.stdout or ():
            stage.note(line.strip())
            missing.discard(line.strip())
            if not missing:
                return
    finally:
        overdue.cancel()
    raise NotProvenError(expected=f"the device to print {', '.join(sorted(missing))}", found="its end")


def _desire(stage: Stage, name: str, interval_s: float) -> None:
    stage.birthmark("hub", "twin", name, "--desired", json.dumps({"interval_s": interval_s}))


def _reported(stage: Stage, name: str) -> dict[str, Any]:
    reported = stage.row("hub", "twin", name)["properties"]["reported"]
    return {key: value for key, value in sorted(reported.items()) if not key.startswith("$")}


def _wait_for_feedback(stage: Stage) -> dict[str, str]:
    """Return the outcome of cloud-to-device messages; the device's acknowledgement may still be in transit."""
    for _ in range(20):
        if told := {row["originalMessageId"]: row["statusCode"] for row in stage.rows("hub", "feedback")}:
            return told
    return {}
