"""Gateway without a password: bootstrap by secure element, late renewal, and a root rollover."""

import json
import time
from typing import Any

from birthmark.demo.harness import Stage, read_event
from birthmark.pki.certificates import parse_pem

TITLE = "A device that always reconnects: chip, late renewal, root rollover"
ABOUT = "No passwords. A certificate expires in a warehouse, and the root is replaced while the device is connected."
_LIFETIME_S = 20
_MARGIN_S = 2
_MESSAGES_S = 3


def play(stage: Stage) -> None:
    """Run the scenario."""
    stage.say(
        "A gateway leaves the factory with a key in its secure element and the manufacturer's certificate for it."
    )
    stage.source("birthmark", "chip", "simulate", "chip", "--chip", "se050")
    stage.birthmark("chip", "cert", "0xF0000100", "--out", "born.pem")
    name = parse_pem(stage.path("born.pem").read_bytes()).subject_cn or ""
    stage.note(f"{name}: the only name of the device so far")

    stage.say(
        f"Start a server that trusts the manufacturer CA. Certificates are valid for {_LIFETIME_S} seconds and "
        "can be renewed up to 1 hour after expiry."
    )
    stage.serve(f'[est]\ndevice_lifetime_s = {_LIFETIME_S}\n\n[est.late_renewal.device]\nwindow = "1h"\n')
    stage.run("sh", "-c", "openssl x509 -in chip/maker-ca.pem -out maker.pem && cat chip/maker-ca.pem >> born.pem")
    stage.birthmark("pki", "manufacturer", "create", "maker.pem")
    stage.run("cp", str(stage.endpoints["trust_bundle"]), "anchor.pem")
    stage.birthmark("dps", "ca", "create", "devices", "anchor.pem", "--verified")
    stage.birthmark("device", "enroll-group", "gateways", "--ca-name", "devices")

    stage.say("Configure the device: it enrolls with the chip's certificate and generates its keys in the chip.")
    _configure(stage, name)
    root = ("--root", "device")
    first = stage.row("agent", "apply", *root)
    stage.note(f"certificate {str(first['thumbprint'])[:16]}…, key: {first['key']}")

    stage.say("The device is stored in a warehouse, and its certificate expires.")
    with stage.console.status("   waiting for the certificate to expire"):
        time.sleep(_LIFETIME_S + _MARGIN_S)
    stage.birthmark("agent", "check", *root, "--offline", may_fail=True)

    stage.say(
        "Switched on again, it proves possession of its key with the expired certificate. Late renewal issues a new "
        "one."
    )
    back = stage.row("agent", "apply", *root)
    _differs(stage, back, first)
    rows = [json.loads(line) for line in stage.birthmark("server", "audit", "export", "--rows").stdout.splitlines()]
    late_renewals = [row for row in rows if row.get("action") == "certificate.comeback"]
    stage.expect(bool(late_renewals), True, "the late renewal is in the audit chain")

    stage.say("Start the root rollover. Both roots are trusted, and devices receive both at their next renewal.")
    stage.birthmark("pki", "rollover", "start", "--yes")
    stage.birthmark("pki", "rollover", "groups")
    _renewed(stage, root)
    stage.say("All devices trust both roots, so the new root signs. It issues the device's next certificate.")
    stage.birthmark("pki", "rollover", "next", "--yes")
    _renewed(stage, root)
    stage.say("No certificate of the old root is in use, so it is no longer trusted. The device stayed connected.")
    over = stage.row("pki", "rollover", "next", "--yes")
    stage.expect(over["state"], "the new alone", "state of the rollover")
    _renewed(stage, root)
    agent = stage.start("birthmark", "agent", "run", *root, "--telemetry", "1", "--json", log="agent.log")
    connected = read_event(agent, "connected")
    with stage.console.status("   waiting for its messages"):
        time.sleep(_MESSAGES_S)
    stage.birthmark("agent", "stop", *root)
    messages = stage.prove_at_hub(name, str(connected["thumbprint"]), stage.endpoints["dps"]["host"])
    stage.expect(messages > 0, True, "messages in the hub")


def _configure(stage: Stage, name: str) -> None:
    """Write the configuration, with the secure element's certificate and key in place of a password."""
    printed = stage.birthmark("env", "--format", "aziot", "--registration-id", name).stdout
    start, end = printed.index('username = "'), printed.index("[cert_issuance.est.urls]")
    token = f"pkcs11:token={stage.environment['BIRTHMARK_TOKEN']}"
    pin = f"pin-source=file:{stage.environment['BIRTHMARK_PIN_FILE']}"
    chip = (
        f'bootstrap_identity_cert = "file://{stage.path("born.pem")}"\n'
        f'bootstrap_identity_pk = "{token};object=sss:F0000100?{pin}"\n\n'
        f'[aziot_keys]\npkcs11_lib_path = "{stage.environment["BIRTHMARK_PKCS11_MODULE"]}"\n'
        f'pkcs11_base_slot = "{token}?{pin}"\n\n'
    )
    text = (printed[:start] + chip + printed[end:]).replace(
        str(stage.endpoints["trust_bundle"]), str(stage.path("anchor.pem"))
    )
    config = stage.path("device/etc/aziot/config.toml")
    config.parent.mkdir(parents=True)
    config.write_text(text)


def _renewed(stage: Stage, root: tuple[str, str]) -> dict[str, Any]:
    row = stage.row("agent", "renew", *root)
    stage.note(f"renewed and tested at the hub: {str(row['thumbprint'])[:16]}…, issued by {row['issuer']}")
    return row


def _differs(stage: Stage, now: dict[str, Any], before: dict[str, Any]) -> None:
    stage.expect(now["thumbprint"] != before["thumbprint"], True, "a new certificate")
