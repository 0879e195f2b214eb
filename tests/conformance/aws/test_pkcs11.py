"""The journey of an SE050: its RSA key stays in the token, awsiotsdk signs with it through PKCS#11."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from birthmark.pki.certificates import parse_pem
from birthmark.testing.cloud import Cloud
from birthmark.testing.device_identity_model import Files
from support.aws.device import ARN, DeviceProcess, document, statement
from support.server.servers import BIRTHMARK, clean_environment

MAKE = """
import json, sys
from datetime import timedelta
from pathlib import Path
from birthmark.clock_and_entropy import SystemClock, SystemEntropy
from birthmark.secure_elements.chip_profiles import PROFILES
from birthmark.secure_elements.softhsm_element import create_software_element
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
def test_a_chips_key_connects_publishes_and_receives(cloud: Cloud, tmp_path: Path, order: str, label: str) -> None:
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
    name = f"chip-{order}"
    policy = document(
        statement("iot:Connect", ARN + "client/${iot:Connection.Thing.ThingName}"),
        statement(["iot:Publish", "iot:Receive"], ARN + f"topic/{name}/*"),
        statement("iot:Subscribe", ARN + f"topicfilter/{name}/*"),
    )
    thing = cloud.aws_thing(name, policy=policy, by=Files(certificate_file=str(certificate), key_file="", not_after=""))
    assert thing.identity.certificate_id == parse_pem(certificate.read_text()).thumbprint.hex()

    given = {
        "endpoint": thing.endpoint,
        "port": 8883,
        "ca": cloud.ca_file,
        "client_id": name,
        "clean": False,
        "certificate": str(certificate),
        "module": chip["module"],
        "token": chip["token"],
        "label": label,
        "pin": Path(environment["BIRTHMARK_PIN_FILE"]).read_text().strip(),
    }
    with DeviceProcess(given, environment) as device:
        assert device("connect") == {"ok": {"session_present": False}}
        assert device("subscribe", topic=f"{name}/#") == {"ok": 1}
        assert device("publish", topic=f"{name}/t", payload="from the chip") == {"ok": None}
        assert device("receive") == {"ok": {"topic": f"{name}/t", "payload": "from the chip"}}
        assert "error" in device("publish", topic="not/mine", payload="x", timeout=2)
        assert device("interrupted") == {"ok": "AWS_ERROR_MQTT_UNEXPECTED_HANGUP"}
    assert thing.why()["code"] == "awsiot.policy_denied"
