"""EdgeLock SE050 and a back end: telemetry from the chip to an Event Hubs reader."""

from birthmark.demo.harness import Stage, app_path
from birthmark.pki.certificates import parse_pem

TITLE = "EdgeLock SE050 → Azure IoT Hub → Event Hubs reader"
ABOUT = "A back end reads the device's telemetry over AMQP. Device and back end use Microsoft's unmodified SDKs."
_MESSAGES = 10


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

    stage.say("The gateway registers, connects, and sends ten messages.")
    stage.run_azure_device(certificate.subject_cn or "")

    stage.say("A back end reads them with azure-eventhub, with the connection string of `birthmark env`.")
    stage.expect(_read(stage, name), list(range(_MESSAGES)), f"sequence numbers of the events of {name}")

    stage.say("A second back end reads the same events in its own consumer group.")
    stage.birthmark("hub", "consumer-group", "create", "analytics")
    numbers = _read(stage, name, CONSUMER_GROUP="analytics")
    stage.expect(numbers, list(range(_MESSAGES)), "sequence numbers in the consumer group analytics")
    stage.prove_at_hub(name, certificate.thumbprint.hex(), stage.endpoints["iothub"]["host"])


def _read(stage: Stage, name: str, **environment: str) -> list[int]:
    """Run the back end, and return the sequence numbers of the device's events."""
    program = ("python", str(app_path("read_telemetry.py")), str(_MESSAGES))
    lines = stage.run(*program, environment=environment).stdout.splitlines()
    for line in lines[:2]:
        stage.note(line)
    return [int(line.split()[2]) for line in lines if line.split()[3] == name]
