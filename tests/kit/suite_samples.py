"""Programs and samples that ship inside the vendors' packages, unmodified, as jobs of a CI would run them.

SAMPLES is where the source packages of paho-mqtt and AWSIoTPythonSDK were unpacked; NODE_PROGRAMS is npm's folder of
programs. The packages of azure-iot-device, azure-iot-hub, azure-iothub-provisioningserviceclient and awsiotsdk ship no
samples, nor do azure-iot-device, azure-iothub and aws-iot-device-sdk-v2 on npm.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from azure.iot.device.common.auth.sastoken import RenewableSasToken
from azure.iot.device.common.auth.signing_mechanism import SymmetricKeySigningMechanism

SAMPLES = Path(os.environ["SAMPLES"])
AMAZONS = next(SAMPLES.glob("awsiotpythonsdk-*/samples"))
PAHOS = next(SAMPLES.glob("paho-mqtt-*/examples"))


def token(device):
    place = f"{device.identity.hub_host}/devices/{device.name}"
    return str(RenewableSasToken(place, SymmetricKeySigningMechanism(device.symmetric_key)))


@pytest.fixture
def keyed(birthmark_cloud):
    """A device of the hub, and how any MQTT client says who it is."""
    device = birthmark_cloud.azure_device(auth="key", at="hub")
    device.user = f"{birthmark_cloud.host}/{device.name}/?api-version=2021-04-12"
    device.password = token(device)
    device.topic = f"devices/{device.name}/messages/events/"
    return device


def must(*command, **more):
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextlib.contextmanager
def running(*command):
    """Run what never ends by itself."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def sample(name, thing, *more):
    """Amazon's way to start one of its samples."""
    files = ("-r", thing.cloud.ca_file, "-c", thing.certificate_file, "-k", thing.key_file)
    return (sys.executable, "-u", str(AMAZONS / name), "-e", thing.endpoint, *files, *more)


# ---- mosquitto


def mosquitto(program, thing, *more):
    where = ("-h", thing.endpoint, "-p", "8883", "--cafile", thing.cloud.ca_file)
    return (program, *where, "--cert", thing.certificate_file, "--key", thing.key_file, *more)


def test_mosquitto_pub_sends_to_the_hub(birthmark_cloud, keyed):
    where = ("-h", birthmark_cloud.host, "-p", "8883", "--cafile", birthmark_cloud.ca_file, "-i", keyed.name)
    must("mosquitto_pub", *where, "-u", keyed.user, "-P", keyed.password, "-q", "1", "-t", keyed.topic, "-m", "hello")
    assert keyed.messages(at_least=1)[0]["body"] == "hello"


def test_mosquitto_pub_and_sub_meet_at_aws(birthmark_cloud, aws_thing):
    other = birthmark_cloud.aws_thing("listener")
    must(*mosquitto("mosquitto_pub", aws_thing, "-i", aws_thing.name, "-q", "1", "-r", "-t", "plant/1", "-m", "21.5"))
    heard = must(*mosquitto("mosquitto_sub", other, "-i", other.name, "-t", "plant/1", "-C", "1", "-W", "20"))
    assert heard == "21.5\n"


def test_mosquitto_rr_asks_and_is_answered(birthmark_cloud, aws_thing):
    """MQTT 5: a request with a response topic, which something that listens answers."""
    other = birthmark_cloud.aws_thing("answering")
    ask = mosquitto(
        "mosquitto_rr", aws_thing, "-V", "5", "-i", aws_thing.name, "-t", "ask", "-e", "told", "-m", "?", "-W", "20"
    )
    with running(*ask) as asking:
        birthmark_cloud.published("ask", at_least=1)
        must(*mosquitto("mosquitto_pub", other, "-i", other.name, "-q", "1", "-t", "told", "-m", "42"))
        assert "42" in asking.communicate(timeout=20)[0]


# ---- paho


def test_pahos_client_pub_opts_sends_to_the_hub(birthmark_cloud, keyed):
    where = ("-H", birthmark_cloud.host, "-F", birthmark_cloud.ca_file, "-c", keyed.name, "-q", "1")
    said = ("-u", keyed.user, "-p", keyed.password, "-t", keyed.topic, "-N", "2", "-S", "0")
    must(sys.executable, "client_pub_opts.py", *where, *said, cwd=PAHOS)
    assert [json.loads(one["body"])["msgnum"] for one in keyed.messages(at_least=2)] == ["0", "1"]


def test_pahos_client_sub_opts_hears_what_the_hub_tells_it(birthmark_cloud, keyed):
    where = ("-H", birthmark_cloud.host, "-F", birthmark_cloud.ca_file, "-c", keyed.name, "-q", "1")
    said = ("-u", keyed.user, "-p", keyed.password, "-t", f"devices/{keyed.name}/messages/devicebound/#")
    with running(sys.executable, "-u", str(PAHOS / "client_sub_opts.py"), *where, *said) as listener:
        while "Subscribed" not in (line := listener.stdout.readline()):
            assert line
        birthmark_cloud.birthmark("hub", "c2d", keyed.name, "restart")
        assert "restart" in listener.stdout.readline()


# ---- Amazon's AWSIoTPythonSDK


def test_basic_pub_sub_publishes(birthmark_cloud, aws_thing):
    what = ("-id", aws_thing.name, "-t", "plant/1", "-m", "publish", "-M", "hello")
    with running(*sample("basicPubSub/basicPubSub.py", aws_thing, *what)):
        (message, *_) = birthmark_cloud.published("plant/1", at_least=1, within_s=30)
    assert json.loads(message["body"]) == {"message": "hello", "sequence": 0}


def test_basic_pub_sub_async_publishes(birthmark_cloud, aws_thing):
    with running(*sample("basicPubSub/basicPubSubAsync.py", aws_thing, "-id", aws_thing.name, "-t", "plant/2")):
        assert birthmark_cloud.published("plant/2", at_least=1, within_s=30)


def test_the_shadow_that_the_updater_changes_is_heard_by_the_listener(birthmark_cloud, aws_thing):
    named = ("-n", aws_thing.name, "-id")
    with running(*sample("basicShadow/basicShadowDeltaListener.py", aws_thing, *named, "listener")) as listener:
        while "suback" not in (line := listener.stdout.readline()).lower():
            assert line
        with running(*sample("basicShadow/basicShadowUpdater.py", aws_thing, *named, "updater")):
            heard = []
            while "property: " not in (line := listener.stdout.readline()):
                assert line, heard
                heard.append(line)
    shadow = birthmark_cloud.boto3("iot-data").get_thing_shadow(thingName=aws_thing.name)
    assert "property" in json.loads(shadow["payload"].read())["state"]["desired"]


def test_the_echo_reports_what_is_desired(birthmark_cloud, aws_thing):
    data = birthmark_cloud.boto3("iot-data")
    data.update_thing_shadow(thingName=aws_thing.name, payload=json.dumps({"state": {"desired": {"a": 0}}}))
    with running(*sample("ThingShadowEcho/ThingShadowEcho.py", aws_thing, "-n", aws_thing.name, "-id", "e")) as echo:
        while "suback" not in (line := echo.stdout.readline()).lower():
            assert line
        for number in range(1, 60):
            desired = json.dumps({"state": {"desired": {"a": number}}})
            data.update_thing_shadow(thingName=aws_thing.name, payload=desired)
            time.sleep(0.3)
            found = json.loads(data.get_thing_shadow(thingName=aws_thing.name)["payload"].read())
            if "reported" in found["state"]:
                return
    pytest.fail(f"nothing was reported: {found}")


def test_the_jobs_sample_does_its_job(birthmark_cloud, aws_thing):
    iot = birthmark_cloud.boto3()
    iot.create_job(jobId="job-1", targets=[aws_thing.identity.arn], document="{}")
    said = must(*sample("jobs/jobsSample.py", aws_thing, "-n", aws_thing.name, "-id", aws_thing.name))
    assert "Done processing jobs" in said
    found = iot.describe_job_execution(jobId="job-1", thingName=aws_thing.name)["execution"]
    assert found["status"] == "SUCCEEDED"


# ---- mqtt of npm


def test_the_program_of_mqtt_js_publishes(birthmark_cloud, aws_thing):
    program = [shutil.which("node"), os.environ["NODE_PROGRAMS"] + "/mqtt_pub"]
    files = ("--ca", birthmark_cloud.ca_file, "--cert", aws_thing.certificate_file, "--key", aws_thing.key_file)
    where = ("-h", aws_thing.endpoint, "-p", "8883", "-C", "mqtts", "-i", aws_thing.name)
    must(*program, *where, *files, "-q", "1", "-t", "plant/1", "-m", "21.5", env=birthmark_cloud.environment())
    assert birthmark_cloud.published("plant/1", at_least=1)[0]["body"] == "21.5"
