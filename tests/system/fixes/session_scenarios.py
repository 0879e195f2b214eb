"""More MQTT clients with a stored session, and more retained messages, than the server keeps."""

from collections.abc import Mapping

from fixes.applied import configured
from fixes.scenario import Scenario, device
from fixes.scene import Scene

from support.aws.device import document, statement

TWO_CLIENTS = """
import os, socket, ssl, sys
sys.path[:0] = [os.environ["TESTS"], os.environ["TESTS"] + "/system"]
from fixes.desk import a_connect
known = os.environ
context = ssl.create_default_context(cafile=known["SSL_CERT_FILE"])
context.load_cert_chain(known["X509_CERT_FILE"], known["X509_KEY_FILE"])
open_ones = []
for name in [f"fix-session-{number}" for number in range(int(sys.argv[1]))]:
    raw = socket.create_connection((known["PROVISIONING_HOST"], 8883), 10)
    open_ones.append(context.wrap_socket(raw, server_hostname=known["PROVISIONING_HOST"]))
    open_ones[-1].sendall(a_connect(name, clean=False))
    assert open_ones[-1].recv(4)[3:] == bytes(1), name
"""

RETAINED = """
import os, socket, ssl, sys
sys.path[:0] = [os.environ["TESTS"], os.environ["TESTS"] + "/system"]
from birthmark.mqtt import codec
from birthmark.mqtt.packets import Publish
from fixes.desk import a_connect
known = os.environ
context = ssl.create_default_context(cafile=known["SSL_CERT_FILE"])
context.load_cert_chain(known["X509_CERT_FILE"], known["X509_KEY_FILE"])
raw = socket.create_connection((known["PROVISIONING_HOST"], 8883), 10)
with context.wrap_socket(raw, server_hostname=known["PROVISIONING_HOST"]) as sock:
    sock.sendall(a_connect("fix-retains"))
    assert sock.recv(4)[3:] == bytes(1)
    for number in (1, 2, 3, 4, 5):
        sock.sendall(codec.encode(Publish(f"fix/kept/{number}", b"x", 1, retain=True, packet_id=number)))
        assert sock.recv(4)[:1] == bytes([0x40]), number
"""

SLOW = """
import os, socket, ssl, subprocess, sys
sys.path[:0] = [os.environ["TESTS"], os.environ["TESTS"] + "/system"]
from fixes.desk import a_connect, a_subscribe
known = os.environ
context = ssl.create_default_context(cafile=known["SSL_CERT_FILE"])
context.load_cert_chain(known["X509_CERT_FILE"], known["X509_KEY_FILE"])
def connected(clean, *packets):
    raw = socket.create_connection((known["PROVISIONING_HOST"], 8883), 10)
    with context.wrap_socket(raw, server_hostname=known["PROVISIONING_HOST"]) as sock:
        sock.settimeout(2)
        got = b""
        for packet in (a_connect("fix-slow", clean=clean), *packets):
            sock.sendall(packet)
            got += sock.recv(4096)
        try:
            while True:
                got += sock.recv(4096) or sys.exit("closed")
        except TimeoutError:
            pass
        return got
connected(True)
connected(False, a_subscribe("fix/slow"))
for payload in ("Zmlyc3Q=", "c2Vjb25k"):
    command = ["aws", "iot-data", "publish", "--topic", "fix/slow", "--qos", "1", "--payload", payload]
    subprocess.run(command, check=True)
got = connected(False)
assert b"second" in got or b"c2Vjb25k" in got, got
"""


def allowed(scene: Scene) -> None:
    device("fix-sessions")(scene)
    (scene.directory / "clients.py").write_text(TWO_CLIENTS)
    (scene.directory / "policy.json").write_text(document(statement("iot:*")))
    scene.must(
        "aws iot create-policy --policy-name any --policy-document file://policy.json && "
        "aws iot attach-policy --policy-name any --target $(aws iot register-certificate-without-ca --status ACTIVE "
        '--certificate-pem "file://$X509_CERT_FILE" --query certificateArn --output text)'
    )


def retaining(scene: Scene) -> None:
    allowed(scene)
    (scene.directory / "retained.py").write_text(RETAINED)


def slow(scene: Scene) -> None:
    allowed(scene)
    (scene.directory / "slow.py").write_text(SLOW)


def one_retained(scene: Scene) -> None:
    scene.must('eval "$(birthmark env)"')
    scene.must("aws iot-data publish --topic fix/first --retain --qos 1 --payload MQ==")


SESSIONS: Mapping[str, Scenario] = {
    "awsiot.too_many_sessions": Scenario(
        "python3 clients.py 2", allowed, apply=configured(), config="aws.max_sessions = 1\n"
    ),
    "broker.session_share_used": Scenario(
        "python3 clients.py 5", allowed, apply=configured(), config="aws.max_sessions = 16\n"
    ),
    "broker.retained_share_used": Scenario(
        "python3 retained.py", retaining, apply=configured(), config="aws.max_retained = 16\n"
    ),
    "awsiot.slow_consumer": Scenario("python3 slow.py", slow, apply=configured(), config="aws.max_waiting = 1\n"),
    "broker.retained_full": Scenario(
        "aws iot-data publish --topic fix/second --retain --qos 1 --payload Mg==",
        one_retained,
        apply=configured(),
        config="aws.max_retained = 1\n",
    ),
}
