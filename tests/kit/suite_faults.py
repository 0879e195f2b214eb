"""Every fault of the kit, met by the vendors' SDKs as they are installed."""

import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest
from awscrt import mqtt
from azure.iot.device import Message
from azure.iot.device.common.auth.sastoken import RenewableSasToken
from azure.iot.device.common.auth.signing_mechanism import SymmetricKeySigningMechanism

from birthmark.errors import BirthmarkError
from birthmark.testing.provoked_refusals import POSSIBLE


def fails(act):
    """Do what is to be refused; whatever the SDK makes of that."""
    caught = []

    def do():
        try:
            act()
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    thread.join(6)
    return caught


def connect(device):
    client = device.client(connection_retry=False)
    try:
        client.connect()
        client.send_message(Message("x"))
    finally:
        client.shutdown()


AZURE = [(auth, at) for auth in ("x509", "key") for at in ("dps", "hub")]


def pytest_generate_tests(metafunc):
    if "azure_case" in metafunc.fixturenames:
        cases = [(auth, at, code) for auth, at in AZURE for code in POSSIBLE[f"azure-device auth={auth} at={at}"]]
        metafunc.parametrize("azure_case", cases, ids="-".join)
    if "aws_case" in metafunc.fixturenames:
        metafunc.parametrize("aws_case", POSSIBLE["aws-thing"])


def test_an_azure_device_is_refused_as_asked(birthmark_cloud, refuse, azure_case):
    auth, at, code = azure_case
    device = birthmark_cloud.azure_device(auth=auth, at=at)
    is_of_hub = at == "hub" or code.startswith("iothub.")
    if at == "dps" and is_of_hub:
        device.register()
    refuse(code, device)
    fails((lambda: connect(device)) if is_of_hub else device.register)
    assert birthmark_cloud.why(code=code)["code"] == code


def test_a_thing_is_refused_as_asked(birthmark_cloud, aws_thing, refuse, aws_case):
    refuse(aws_case, aws_thing)

    def publish():
        connection = aws_thing.connection(keep_alive_secs=5)
        connection.connect().result(5)
        connection.publish("a", "b", mqtt.QoS.AT_LEAST_ONCE)[0].result(5)

    fails(publish)
    assert birthmark_cloud.why(code=aws_case)["code"] == aws_case


def test_what_cannot_be_provoked_is_said_with_what_can(refuse, azure_device):
    with pytest.raises(BirthmarkError, match="cannot be provoked") as refused:
        refuse("net.slow_reader", azure_device)
    assert "dps.enrollment_disabled" in refused.value.explain_cause()


def test_a_certificate_that_is_over_registers_nobody(birthmark_cloud, azure_device, expired):
    expired(azure_device)
    assert fails(azure_device.register)
    assert azure_device.why()["code"] == "pki.certificate_expired"


def test_a_device_that_was_taken_back_is_out_at_once(birthmark_cloud, azure_device, revoked):
    azure_device.register()
    client = azure_device.client(connection_retry=False)
    client.connect()
    revoked(azure_device)
    until(lambda: not client.connected)
    assert fails(client.connect)
    assert azure_device.why()
    client.shutdown()


def test_a_server_whose_clock_is_ahead_takes_no_token(birthmark_cloud, wrong_clock):
    device = birthmark_cloud.azure_device(auth="key", at="hub")
    wrong_clock("+2h")
    assert fails(lambda: connect(device))
    assert device.why()["code"] == "sas.expired"
    wrong_clock("0")
    connect(device)


def test_a_device_whose_clock_is_years_behind_trusts_no_server(birthmark_cloud, azure_device, wrong_clock):
    program = (
        "import os; from azure.iot.device import *; "
        "print(ProvisioningDeviceClient.create_from_x509_certificate(os.environ['PROVISIONING_HOST'], "
        "os.environ['PROVISIONING_REGISTRATION_ID'], os.environ['PROVISIONING_IDSCOPE'], "
        "X509(os.environ['X509_CERT_FILE'], os.environ['X509_KEY_FILE'])).register())"
    )
    environment = azure_device.environment(**wrong_clock.device("-10y"))
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "certificate is not yet valid" in done.stderr
    assert birthmark_cloud.why()["code"].startswith("tls.")


def test_who_comes_too_often_waits_as_the_service_says(birthmark_cloud, throttled):
    device = birthmark_cloud.azure_device("busy", auth="key", at="hub")
    throttled(lasts="20s")
    place = urllib.request.Request(
        f"https://{birthmark_cloud.host}:{birthmark_cloud.endpoints['iothub']['https_port']}"
        "/devices/busy/messages/events?api-version=2020-09-30",
        data=b"x",
        headers={"Authorization": token(device)},
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(place, context=ssl.create_default_context(cafile=birthmark_cloud.ca_file))
    assert refused.value.code == 429
    assert 10 < int(refused.value.headers["Retry-After"]) <= 21


def token(device):
    place = f"{device.identity.hub_host}/devices/{device.name}"
    return str(RenewableSasToken(place, SymmetricKeySigningMechanism(device.symmetric_key)))


def test_a_line_that_is_cut_is_found_out_and_mended(birthmark_cloud, azure_device, cut_line):
    cut_line.mend()
    azure_device.register()
    client = azure_device.client(connection_retry_interval=1)
    client.connect()
    cut_line.cut()
    until(lambda: not client.connected)
    cut_line.mend()
    until(lambda: client.connected)  # the SDK comes back by itself
    client.send_message(Message("after"))
    client.shutdown()
    assert azure_device.messages(at_least=1)[0]["body"] == "after"


def test_a_line_that_breaks_within_a_message_loses_none(birthmark_cloud, aws_thing, cut_line):
    """By Amazon's SDK: Microsoft's may wait for ever where its line breaks as it publishes."""
    cut_line.mend()
    connection = aws_thing.connection(reconnect_min_timeout_secs=1)
    connection.connect().result(20)
    cut_line.drop(after_bytes=2000)
    told, _ = connection.publish("plant/1", "x" * 20_000, mqtt.QoS.AT_LEAST_ONCE)
    told.result(20)  # it is acknowledged over another connection
    connection.disconnect().result(20)
    assert birthmark_cloud.published("plant/1", at_least=1)[0]["body"] == "x" * 20_000


def test_nothing_moves_on_a_line_that_stalls(birthmark_cloud, aws_thing, cut_line):
    cut_line.mend()
    connection = aws_thing.connection()
    connection.connect().result(20)
    cut_line.stall()
    told, _ = connection.publish("plant/1", "late", mqtt.QoS.AT_LEAST_ONCE)
    with pytest.raises(TimeoutError):
        told.result(1)
    assert birthmark_cloud.published() == []
    cut_line.mend()
    told.result(20)
    assert birthmark_cloud.published("plant/1", at_least=1)
    connection.disconnect().result(20)


def test_after_all_that_the_next_test_has_a_cloud_as_new(birthmark_cloud, azure_device):
    assert azure_device.register().status == "assigned"
    assert birthmark_cloud.refusals() == []


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_line_that_is_cut_first_under_a_false_clock_leads_to_a_server_that_is_trusted(
    birthmark_cloud, wrong_clock, cut_line
):
    wrong_clock("+5000d")
    cut_line.mend()
    assert birthmark_cloud.azure_device(lasts="2d").register().status == "assigned"
    with pytest.raises(BirthmarkError):  # the clock is still off: what boto3 signs is of another day
        birthmark_cloud.aws_thing()


def test_a_line_that_is_cut_first_while_limits_are_used_up_leaves_them_so(azure_device, throttled, cut_line):
    throttled(lasts="1h")
    cut_line.mend()
    fails(azure_device.register)  # the SDK waits as long as it is told
    assert azure_device.why("dps.tier_throttled")
