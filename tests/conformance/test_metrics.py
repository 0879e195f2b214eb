"""Every metric is moved by clients of the clouds and by the commands, or by a test that is named here."""

import contextlib
import json
import subprocess
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from birthmark.metric_catalog import CATALOGUE
from support.azure.clients import run_python
from support.azure.event_hubs import Reader
from support.pki.est_curl import enroll_by_curl
from support.server.scaled import WORKERS
from support.server.servers import RunningServer, a_server, clean_environment

pytestmark = [
    pytest.mark.system,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # azure-eventhub leaves sockets open
]

# Nobody sees the first at another value than 0 from outside: tests/integration/store/test_commits.py moves them. The
# certificates' are there from the start, and tests/integration/net/test_certificate.py moves them.
MOVED_ELSEWHERE = {
    *("birthmark_writer_waiting", "birthmark_outbox_events", "birthmark_background_failures_total"),
    *("birthmark_certificate_expiry_timestamp_seconds", "birthmark_server_certificate_taken"),
    "birthmark_routes_lag_seconds",  # tests/integration/iothub/test_routes.py
    *("birthmark_rules_lag_seconds", "birthmark_rules_missed_total"),  # tests/integration/awsiot/test_rules.py
}
JUDGED = {
    *("birthmark_certificates_unrenewed", "birthmark_crl_expiry_timestamp_seconds", "birthmark_disk_free_ratio"),
    *("birthmark_clock_steady", "birthmark_outbox_age_seconds", "birthmark_webhook_failing_seconds"),
    *("birthmark_alerts", "birthmark_clock_offset_seconds"),
}
"""They are there from the first look at what is judged: tests/integration/server/test_alerts.py moves them."""
DEVICE = """
import base64, os, time
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import CloudToDeviceMethod, Twin, TwinProperties
from azure.iot.device import IoTHubDeviceClient, MethodResponse
key = base64.b64encode(b"k" * 32).decode()
text = os.environ["IOTHUB_CONNECTION_STRING"]
service = IoTHubRegistryManager.from_connection_string(text)
service.create_device_with_sas("metered", key, key, "enabled")
host = dict(part.split("=", 1) for part in text.split(";"))["HostName"].split(":")[0]
client = IoTHubDeviceClient.create_from_connection_string(f"HostName={host};DeviceId=metered;SharedAccessKey={key}")
client.connect()
def answer(request):
    client.send_method_response(MethodResponse(request.request_id, 200, {}))
client.on_method_request_received = answer
client.send_message("hello")
client.patch_twin_reported_properties({"a": 1})
service.update_twin("metered", Twin(properties=TwinProperties(desired={"b": 1})), "*")
service.invoke_device_method("metered", CloudToDeviceMethod(method_name="m", payload={}))
client.shutdown()
"""
PARTITIONS = 4
Values = dict[tuple[str, ...], float]


@pytest.fixture(scope="module")
def birthmark_config() -> str:
    return "[aws]\nmax_waiting = 2\n"


def scrape(server: RunningServer) -> Values:
    url = server.endpoints["health_url"].replace("/healthz", "/metrics")
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    values: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            labels = [value for name, value in one.labels.items() if name != "worker"]
            values[one.name, *sorted(labels)] += one.value
    return dict(values)


def families_of(values: Values, before: Values) -> set[str]:
    """Return the metrics that have another value than before."""
    names = {key[0] for key, value in values.items() if value != before.get(key, 0.0)}
    return {name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") for name in names}


@contextlib.contextmanager
def over_amqp(server: RunningServer) -> Iterator[None]:
    """Connect a device over AMQP."""
    device = server.cloud.azure_device("by-amqp", at="hub", auth="key", transport="amqp").client()
    device.connect()
    yield
    device.shutdown()


def test_every_metric_moves(server: RunningServer, tmp_path: Path) -> None:
    before = scrape(server)
    server.run("ca", "init", "--name", "M", "--dir", str(tmp_path / "ca"))
    server.run("ca", "issue", "registers", "--dir", str(tmp_path / "ca"), "--out-dir", str(tmp_path))
    files = ["--cert", str(tmp_path / "registers.cert.pem"), "--key", str(tmp_path / "registers.key.pem")]
    assert server.attempt("device", "register", *files, **server.environment).returncode != 0
    server.run("device", "enroll", "registers", "--cert", files[1])
    server.run("device", "register", *files, **server.environment)
    server.run("hub", "endpoint", "create", "live", "--stream")
    server.run("hub", "route", "create", "all", "--endpoint", "live")
    rule = {
        "sql": "SELECT * FROM 'kept'",
        "actions": [{"republish": {"topic": "again", "roleArn": "arn:aws:iam::1:role/r"}}],
    }
    (tmp_path / "rule.json").write_text(json.dumps(rule))
    server.run("aws", "rule", "create", "metered", str(tmp_path / "rule.json"))
    done = run_python(DEVICE, dict(server.environment))
    assert done.returncode == 0, done.stderr
    server.attempt("hub", "method", "metered", "m")
    server.run("hub", "c2d", "metered", "wait")
    server.run("aws", "shadow", "metered", "--desired", '{"a": 1}')
    renewed_and_revoked(server, tmp_path)
    with subscribed(server, tmp_path) as publish:
        for number in range(4):
            subprocess.run([*publish, "-t", "kept", "-m", str(number)], check=True, timeout=20, env=clean_environment())
        time.sleep(0.6)
        with Reader(server.cloud) as reader, over_amqp(server):
            reader.received(1)
            after = scrape(server)
    moved = families_of(after, before)
    moved.discard("birthmark_writer_waiting")  # of a moment: something may have waited just then
    assert {metric.name for metric in CATALOGUE} - moved - JUDGED == MOVED_ELSEWHERE
    count = {key: value - before.get(key, 0.0) for key, value in after.items()}
    assert count["birthmark_messages_dropped_total", "aws", "queue_full"] == 2
    assert count["birthmark_connections", "3.1.1", "aws"] == 1
    assert count["birthmark_sessions", "aws"] == WORKERS  # each tells of all that are stored
    assert count["birthmark_messages_received_total", "1", "aws"] == 4
    assert count["birthmark_messages_sent_total", "1", "aws"] == 4
    assert count["birthmark_telemetry_messages_total", "birthmark"] == 1
    assert count["birthmark_amqp_connections",] >= 1
    assert count["birthmark_amqp_devices", "birthmark"] == 1
    assert count["birthmark_event_readers", "birthmark"] == PARTITIONS
    assert count["birthmark_events_sent_total", "birthmark"] == 1
    assert count["birthmark_method_calls_total", "answered"] == 1
    assert count["birthmark_method_calls_total", "not_online"] == 1
    assert count["birthmark_twin_updates_total", "device"] == count["birthmark_twin_updates_total", "service"] == 1
    assert count["birthmark_shadow_updates_total",] == 1
    assert count["birthmark_registrations_total",] == 1
    assert count["birthmark_refusals_total", "dps.not_enrolled"] >= 1
    assert count["birthmark_inbox_letters",] == 1
    assert count["birthmark_certificates_issued_total", "device"] == 2
    assert count["birthmark_certificates_renewed_total",] == 1
    assert count["birthmark_renewals_refused_total", "pki.csr_malformed"] == 1
    assert count["birthmark_telemetry_kept_bytes", "birthmark"] > 0


def renewed_and_revoked(server: RunningServer, directory: Path) -> None:
    """Renew a certificate by EST, ask for that as nobody understands, then take it back."""
    issued = enroll_by_curl(server, directory, "est-metered")
    (directory / "est.pem").write_text(issued.pem())
    post = ["curl", "-sSf", "--cert", str(directory / "est.pem"), "--key", str(directory / "est.key")]
    post += ["-H", "Content-Type: application/pkcs10", "-o", "/dev/null"]
    post += ["--data-binary", f"@{directory / 'est.csr.b64'}"]
    url = f"{server.endpoints['est']['url']}/simplereenroll"
    subprocess.run([*post, url], check=True, env=dict(server.environment))
    wrong = [part if not part.startswith("@") else "AAAA" for part in post if part != "-sSf"]
    subprocess.run([*wrong, "-sS", url], check=True, env=dict(server.environment))
    server.run("pki", "revoke", issued.thumbprint.hex())


class subscribed:  # noqa: N801 - used as a function
    """A session that waits, away, and a client that listens: what publishes to them is `with`'s value."""

    def __init__(self, server: RunningServer, directory: Path) -> None:
        thing = server.cloud.aws_thing()
        self._common = ["-h", thing.endpoint, "-p", "8883", "-q", "1", "-V", "311"]
        self._common += ["--cafile", thing.cloud.ca_file, "--cert", thing.certificate_file, "--key", thing.key_file]
        self._out = (directory / "listens").open("w+")

    def __enter__(self) -> list[str]:
        away = ["mosquitto_sub", *self._common, "-c", "-i", "away", "-t", "kept", "-E"]
        subprocess.run(away, check=True, timeout=20, env=clean_environment())
        here = ["stdbuf", "-oL", "mosquitto_sub", *self._common, "-i", "here", "-t", "kept", "-d"]
        self._here = subprocess.Popen(here, stdout=self._out, stderr=self._out, env=clean_environment())
        for _ in range(200):
            self._out.seek(0)
            if "Subscribed" in self._out.read():
                break
            time.sleep(0.05)
        return ["mosquitto_pub", *self._common, "-i", "publisher"]

    def __exit__(self, *_: object) -> None:
        self._here.terminate()
        self._here.wait()
        self._out.close()


@pytest.mark.parametrize("is_open", [False, True])
def test_metrics_are_for_this_machine_unless_a_setting_opens_them(tmp_path: Path, is_open: bool) -> None:
    named = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split()
    reached = next(iter(named), "")
    if not reached or ":" in reached:
        pytest.skip("this machine has no other address than loopback")
    config = f'health_listen = ["{reached}"]\nhealth_metrics = {str(is_open).lower()}\n'
    with a_server(tmp_path, config) as server:
        del server
        url = f"http://{reached}:8080"
        with urllib.request.urlopen(f"{url}/healthz", timeout=10) as answer:
            assert answer.status == 200
        try:
            with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
                status = answer.status
        except urllib.error.HTTPError as error:
            status = error.code
        assert status == (200 if is_open else 404)
