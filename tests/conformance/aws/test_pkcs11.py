"""The journey of an SE050: its RSA key stays in the token, awsiotsdk signs with it through PKCS#11."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aws_device import ARN, DeviceProcess, document, statement
from birthmark.pki.certificates import parse_pem
from servers import BIRTHMARK, RunningServer, clean_environment

MAKE = """
import json, sys
from datetime import timedelta
from pathlib import Path
from birthmark.clock import SystemClock, SystemEntropy
from birthmark.elements.profiles import PROFILES
from birthmark.elements.software import create_software_element
made = create_software_element(
    Path(sys.argv[1]),
    PROFILES["se050"],
    now=SystemClock().now() - timedelta(hours=1),
    entropy=SystemEntropy(),
    has_swapped_labels=sys.argv[2] == "swapped",
)
print(json.dumps({"module": str(made.module), "token": made.token_label, **made.environment}))
"""


@pytest.mark.parametrize(
    ("order", "label"), [("as-is", "sss:F0000110"), ("swapped", "sss:100100F0")], ids=["today", "byte-swapped"]
)
def test_a_chips_key_connects_publishes_and_receives(
    server: RunningServer, iot: Any, tmp_path: Path, order: str, label: str
) -> None:
    made = subprocess.run(
        [sys.executable, "-c", MAKE, str(tmp_path / "chip"), order],
        check=True,
        capture_output=True,
        text=True,
        env=clean_environment(),
    )
    chip = json.loads(made.stdout)
    environment = {name: value for name, value in chip.items() if name.isupper()}
    certificate = tmp_path / "cert.pem"
    certificate.write_text(
        subprocess.run(
            [BIRTHMARK, "chip", "cert", "0xF0000110"],
            check=True,
            capture_output=True,
            text=True,
            env=clean_environment(**environment),
        ).stdout
    )
    thing = f"chip-{order}"
    iot.create_thing(thingName=thing)
    iot.create_policy(
        policyName=thing,
        policyDocument=document(
            statement("iot:Connect", ARN + "client/${iot:Connection.Thing.ThingName}"),
            statement(["iot:Publish", "iot:Receive"], ARN + f"topic/{thing}/*"),
            statement("iot:Subscribe", ARN + f"topicfilter/{thing}/*"),
        ),
    )
    registered = iot.register_certificate_without_ca(certificatePem=certificate.read_text(), status="ACTIVE")
    assert registered["certificateId"] == parse_pem(certificate.read_text()).thumbprint.hex()
    iot.attach_policy(policyName=thing, target=registered["certificateArn"])
    iot.attach_thing_principal(thingName=thing, principal=registered["certificateArn"])
    endpoint = iot.describe_endpoint(endpointType="iot:Data-ATS")["endpointAddress"]

    given = {
        "endpoint": endpoint,
        "port": 8883,
        "ca": server.endpoints["trust_bundle"],
        "client_id": thing,
        "clean": False,
        "certificate": str(certificate),
        "module": chip["module"],
        "token": chip["token"],
        "label": label,
        "pin": Path(environment["BIRTHMARK_PIN_FILE"]).read_text().strip(),
    }
    with DeviceProcess(given, environment) as device:
        assert device("connect") == {"ok": {"session_present": False}}
        assert device("subscribe", topic=f"{thing}/#") == {"ok": 1}
        assert device("publish", topic=f"{thing}/t", payload="from the chip") == {"ok": None}
        assert device("receive") == {"ok": {"topic": f"{thing}/t", "payload": "from the chip"}}
        assert "error" in device("publish", topic="not/mine", payload="x", timeout=2)
        assert device("interrupted") == {"ok": "AWS_ERROR_MQTT_UNEXPECTED_HANGUP"}
    assert server.why(thing)["code"] == "awsiot.policy_denied"
