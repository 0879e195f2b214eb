"""ATECC608 with your own CA to Azure DPS: group enrollment, and reconnection to the assigned hub."""

from birthmark.demo.harness import Stage
from birthmark.pki.certificates import parse_bundle

TITLE = "ATECC608 with your own CA → Azure DPS, group enrollment"
ABOUT = "One enrollment for a complete product line; each chip stores its hub and reconnects to it directly."
_NAME = "gateway-0001"
_MESSAGES = 5


def play(stage: Stage) -> None:
    """Run the scenario."""
    stage.say("Create your own CA: a root and an issuing CA with encrypted keys.")
    stage.birthmark("ca", "init", "--name", "Example Gateways", "--dir", "ca")

    stage.say(
        "Start the local cloud and register the root. It authenticates no devices until you prove possession of its "
        "key."
    )
    stage.serve()
    stage.birthmark("dps", "ca", "create", "example-ca", "ca/root.pem")
    stage.birthmark("device", "enroll-group", "example-gateways", "--ca-name", "example-ca")
    stage.expect(_is_verified(stage), False, "CA verified")

    stage.say("Prove possession: the cloud returns a code, and the CA signs a certificate that contains it.")
    code = stage.birthmark("dps", "ca", "code", "example-ca").stdout.strip()
    stage.birthmark("ca", "verify-possession", code, "--dir", "ca", "--out", "proof.pem")
    stage.birthmark("dps", "ca", "verify", "example-ca", "proof.pem")
    stage.expect(_is_verified(stage), True, "CA verified")

    stage.say(
        "For a gateway with an ATECC608, sign a CSR in the chip, issue the certificate, and write it to the chip."
    )
    stage.source("birthmark", "chip", "simulate", "chip", "--chip", "atecc608")
    stage.birthmark("chip", "csr", "--cn", _NAME, "--out", "gateway.csr")
    stage.birthmark("ca", "sign", "gateway.csr", "--dir", "ca", "--out", "gateway.pem")
    stage.birthmark("chip", "write", "gateway.pem")
    leaf = parse_bundle(stage.path("gateway.pem").read_bytes())[0]
    stage.note(f"{leaf.subject_cn}, issued by {leaf.issuer_text}")

    stage.say("It registers over MQTT with its chain, and the chip stores its hub.")
    chain = ("--chip", "--cert", "gateway.pem")
    registered = stage.row("device", "register", *chain, "--remember")
    stage.expect(registered["device_id"], _NAME, "registered as")
    hub = str(registered["assigned_hub"])
    stage.note(f"assigned hub {hub}")

    stage.say("It connects to the assigned hub and sends messages.")
    sent = stage.row("device", "send", '{"reading": {n}}', "--count", str(_MESSAGES), *chain)
    stage.expect(sent["sent"], _MESSAGES, "messages sent")

    stage.say(
        "After a restart, it connects to the hub directly, without DPS. The provisioning variables are not set here."
    )
    gone = ("PROVISIONING_HOST", "PROVISIONING_IDSCOPE")
    again = stage.row("device", "connect", *chain, without=gone)
    stage.expect(again["how"], "remembered", "source of the hub")
    stage.expect(again["connected"], True, "connected")

    messages = stage.prove_at_hub(_NAME, leaf.thumbprint.hex(), hub)
    stage.expect(messages, _MESSAGES, "messages in the hub")


def _is_verified(stage: Stage) -> bool:
    (row,) = stage.rows("dps", "ca", "ls")
    return bool(row["verified"])
