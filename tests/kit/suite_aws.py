"""What somebody's own tests look like for AWS IoT: the fixtures, boto3, awsiotsdk and paho, as they are installed."""

import json
import ssl
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import paho.mqtt.client as paho
from awscrt import mqtt, mqtt5

PROGRAM = """
import os
from awscrt import mqtt
from awsiot import mqtt_connection_builder
connection = mqtt_connection_builder.mtls_from_path(
    endpoint=os.environ["AWS_IOT_ENDPOINT"], port=8883, cert_filepath=os.environ["CERT_FILE"],
    pri_key_filepath=os.environ["KEY_FILE"], ca_filepath=os.environ["CA_FILE"], client_id=os.environ["THING_NAME"],
)
connection.connect().result(20)
connection.publish("plant/1", "from a program", mqtt.QoS.AT_LEAST_ONCE)[0].result(20)
connection.disconnect().result(20)
"""


def test_a_thing_publishes_by_awsiotsdk(birthmark_cloud, aws_thing):
    connection = aws_thing.connection()
    connection.connect().result(20)
    connection.publish("plant/1", json.dumps({"t": 21.5}), mqtt.QoS.AT_LEAST_ONCE)[0].result(20)
    connection.disconnect().result(20)
    (message,) = birthmark_cloud.published("plant/1", client=aws_thing, at_least=1)
    assert json.loads(message["body"]) == {"t": 21.5}


def test_a_thing_publishes_by_mqtt_5(birthmark_cloud, aws_thing):
    there, ended = threading.Event(), threading.Event()
    client = aws_thing.client5(
        on_lifecycle_connection_success=lambda _: there.set(), on_lifecycle_stopped=lambda _: ended.set()
    )
    client.start()
    assert there.wait(20)
    packet = mqtt5.PublishPacket(topic="plant/5", payload="five", qos=mqtt5.QoS.AT_LEAST_ONCE)
    client.publish(packet).result(20)
    client.stop()
    assert ended.wait(20)
    assert birthmark_cloud.published("plant/5", at_least=1)[0]["body"] == "five"


def test_a_thing_publishes_by_paho(birthmark_cloud, aws_thing):
    context = ssl.create_default_context(cafile=birthmark_cloud.ca_file)
    context.load_cert_chain(aws_thing.certificate_file, aws_thing.key_file)
    client = paho.Client(aws_thing.name)
    client.tls_set_context(context)
    client.connect(aws_thing.endpoint, 8883)
    client.loop_start()
    client.publish("plant/paho", "hello", 1).wait_for_publish(20)
    client.disconnect()
    client.loop_stop()
    assert birthmark_cloud.published("plant/paho", at_least=1)[0]["client"] == aws_thing.name


def test_the_account_is_seen_by_boto3(birthmark_cloud, aws_thing):
    names = [thing["thingName"] for thing in birthmark_cloud.boto3().list_things()["things"]]
    assert names == [aws_thing.name]
    birthmark_cloud.boto3("iot-data").update_thing_shadow(thingName=aws_thing.name, payload=b'{"state": {}}')


def test_a_program_of_ones_own_reaches_it_by_its_environment(birthmark_cloud, aws_thing):
    subprocess.run([sys.executable, "-c", PROGRAM], env=aws_thing.environment(), check=True, timeout=60)
    assert birthmark_cloud.published("plant/1", at_least=1)[0]["body"] == "from a program"


def test_a_policy_of_ones_own_counts(birthmark_cloud):
    allowed = {"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"}
    thing = birthmark_cloud.aws_thing(policy=json.dumps({"Version": "2012-10-17", "Statement": [allowed]}))
    connection = thing.connection()
    connection.connect().result(20)
    connection.publish("plant/1", "no", mqtt.QoS.AT_LEAST_ONCE)
    assert thing.why("awsiot.policy_denied")["facts"]["thing"] == thing.name
    connection.disconnect()


def test_a_message_is_found_behind_many_of_other_topics(birthmark_cloud, aws_thing):
    data = birthmark_cloud.boto3("iot-data")
    data.publish(topic="plant/1", qos=1, payload=b"first")
    with ThreadPoolExecutor(4) as publishers:
        list(publishers.map(lambda _: data.publish(topic="plant/2", qos=1, payload=b"x"), range(1100)))
    assert len(birthmark_cloud.published("plant/2", at_least=1100)) == 1100
    assert [message["body"] for message in birthmark_cloud.published("plant/1")] == ["first"]


def test_nothing_of_another_test_is_here(birthmark_cloud):
    assert birthmark_cloud.boto3().list_things()["things"] == []
    assert birthmark_cloud.published() == []
