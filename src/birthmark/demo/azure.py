"""EdgeLock SE050 and Azure IoT Hub through DPS, with an individual enrollment."""

from birthmark.demo.harness import Stage
from birthmark.pki.certificates import parse_pem

TITLE = "EdgeLock SE050 → Azure IoT Hub through DPS"
ABOUT = "Individual enrollment; the key never leaves the chip; the SDK is Microsoft's own, unmodified."
_MESSAGES = 10


def play(stage: Stage) -> None:
    """Run the scenario."""
    stage.say(
        "A gateway leaves the factory with a key and NXP's certificate in its secure element, which is simulated here."
    )
    stage.source("birthmark", "chip", "simulate", "chip", "--chip", "se050")
    for row in stage.rows("chip", "ls"):
        if row["kind"] in {"private key", "certificate"}:
            guarded = ", never extractable" if row["guarded"] else ""
            stage.note(f"{row['kind']} {row['object_id'] or row['label']}: {row['detail']}{guarded}")

    stage.say("Read its IDevID certificate, and create a reference key that only identifies the key in the chip.")
    stage.birthmark("chip", "cert", "0xF0000100", "--out", "device.pem")
    stage.birthmark("chip", "refkey", "0xF0000100", "--out", "device.key")
    certificate = parse_pem(stage.path("device.pem").read_bytes())
    name = certificate.subject_cn or ""
    stage.note(f"{name}, thumbprint {certificate.thumbprint.hex()[:16]}…")

    stage.say("Start the local cloud.")
    stage.serve()

    stage.say("Enroll the device.")
    stage.birthmark("device", "enroll", "--cert", "device.pem")
    stage.expect(stage.state_of(name), "unassigned", "registration state")

    stage.say(
        "The reference key is useless without the secure element: the server rejects the connection and records the "
        "reason."
    )
    stage.expect_refused(lambda: stage.run_azure_device(name, in_chip=False), name, "tls.key_not_proven")

    stage.say("The same program registers, connects, and sends ten messages with the key in the secure element.")
    stage.run_azure_device(name)

    stage.say("Check the result in the cloud.")
    stage.expect(stage.state_of(name), "assigned", "registration state")
    (device,) = [row for row in stage.rows("hub", "device", "ls") if row["device"] == name.lower()]
    stage.expect(device["thumbprint"], certificate.thumbprint.hex(), "thumbprint at the hub")
    messages = stage.prove_at_hub(name, certificate.thumbprint.hex(), stage.endpoints["iothub"]["host"])
    stage.expect(messages, _MESSAGES, "messages at the hub")
