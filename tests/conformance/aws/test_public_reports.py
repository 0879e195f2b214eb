"""What people reported of AWS IoT in public: each report played by the clients they had, and what comes of it here.

Each test names its thread; docs/explanation/test-coverage.md has the threads and those that found a fault.
"""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import paho.mqtt.client as paho
import pytest
from botocore.exceptions import ClientError

from support.aws.clients import until
from support.aws.device import ARN, Enrolled, statement

pytestmark = pytest.mark.system
Enroll = Callable[..., Enrolled]
NUMBERS = count(1)
ROLE = "arn:aws:iam::000000000000:role/provisioning"


def allowed(*resources: str) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": "iot:*", "Resource": list(resources)}


class Device:
    """paho 3.1.1 as firmware uses it; it does not connect again."""

    def __init__(self, enrolled: Enrolled, client_id: str = "", will_qos: int | None = None) -> None:
        self.code: int | None = None
        self.granted: list[int] = []
        self.heard: list[tuple[str, bytes]] = []
        self._acked, self.closed = threading.Event(), threading.Event()
        self._answered = threading.Event()
        files = enrolled.files
        self.client = paho.Client(client_id or enrolled.name, reconnect_on_failure=False)
        context = ssl.create_default_context(cafile=files["ca"])
        context.load_cert_chain(files["certificate"], files["key"])
        self.client.tls_set_context(context)
        if will_qos is not None:
            self.client.will_set("wills/a", "gone", qos=will_qos)
        self.client.on_connect = self._connected
        self.client.on_disconnect = lambda *_: self.closed.set()
        self.client.on_subscribe = self._subscribed
        self.client.on_unsubscribe = lambda *_: self._acked.set()
        self.client.on_message = lambda _c, _d, message: self.heard.append((message.topic, message.payload))
        self.client.connect(files["endpoint"], 8883)
        self.client.loop_start()

    def _connected(self, _client: Any, _data: Any, _flags: Any, code: int) -> None:
        self.code = code
        self._answered.set()

    def _subscribed(self, _client: Any, _data: Any, _mid: int, granted: Any) -> None:
        self.granted.extend(granted)
        self._acked.set()

    def is_taken(self) -> bool:
        until(lambda: self._answered.is_set() or self.closed.is_set())
        return self.code == 0 and not self.closed.wait(0.2)

    def subscribe(self, topic: str, qos: int = 1) -> list[int]:
        self._acked.clear()
        self.granted.clear()
        self.client.subscribe(topic, qos)
        assert self._acked.wait(20)
        return list(self.granted)

    def ask(self, topic: str, body: Any) -> tuple[str, Any]:
        """Publish, and return how and what was answered."""
        self.subscribe(f"{topic}/accepted")
        self.subscribe(f"{topic}/rejected")
        self.client.publish(topic, json.dumps(body), qos=1)
        until(lambda: bool(self.heard))
        answered, payload = self.heard.pop(0)
        return answered.rpartition("/")[2], json.loads(payload)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def connected(enroll: Enroll) -> Iterator[Callable[..., Device]]:
    made: list[Device] = []

    def connect(*statements: dict[str, Any], enrolled: Enrolled | None = None, **more: Any) -> Device:
        by = enrolled or enroll(f"report-{next(NUMBERS)}", *(statements or (allowed("*"),)))
        made.append(Device(by, **more))
        return made[-1]

    yield connect
    for one in made:
        one.close()


def test_crt_python_229_a_message_that_the_policy_denies_closes_the_connection(connected: Any) -> None:
    device = connected(allowed(f"{ARN}client/*", f"{ARN}topic/yes"))
    assert device.is_taken()
    device.client.publish("yes", "1", qos=1).wait_for_publish(20)
    device.client.publish("no", "1", qos=1)
    assert device.closed.wait(20)


def test_cpp_v2_167_a_policy_of_everything_on_a_topic_connects_nobody(connected: Any) -> None:
    assert not connected(allowed(f"{ARN}topic/test")).is_taken()


def test_python_v2_236_two_devices_of_one_client_id_push_each_other_out(connected: Any, enroll: Enroll) -> None:
    enrolled = enroll(f"report-{next(NUMBERS)}", allowed("*"))
    first = connected(enrolled=enrolled)
    assert first.is_taken()
    assert connected(enrolled=enrolled).is_taken()
    assert first.closed.wait(20)


def test_core2_81_the_variable_for_the_client_id_names_the_device_alone(connected: Any, enroll: Enroll) -> None:
    own = statement("iot:*", f"{ARN}topic/devices/${{iot:ClientId}}/*"), allowed(f"{ARN}client/*")
    device = connected(*own)
    assert device.is_taken()
    mine = device.client._client_id.decode()
    device.client.publish(f"devices/{mine}/up", "1", qos=1).wait_for_publish(20)
    device.client.publish("devices/another/up", "1", qos=1)
    assert device.closed.wait(20)


def test_mqtt_client_232_qos_2_is_granted_as_1_and_no_message_takes_it(connected: Any) -> None:
    device = connected()
    assert device.subscribe("a/b", qos=2) == [1]
    device.client.publish("a/b", "1", qos=2)
    assert device.closed.wait(20)


def test_esp_mqtt_client_116_a_will_of_qos_2_is_not_taken(connected: Any) -> None:
    assert not connected(will_qos=2).is_taken()
    assert connected(will_qos=1).is_taken()


def test_mqtt_client_640_what_a_shadow_tells_is_not_published_by_a_device(connected: Any) -> None:
    device = connected()
    assert device.is_taken()
    device.client.publish("$aws/things/x/shadow/update/documents", "hello", qos=1)
    assert device.closed.wait(20)


def test_mqtt_client_312_an_unsubscribe_without_its_flags_closes_the_connection(connected: Any) -> None:
    device = connected()
    assert device.subscribe("a/b") == [1]
    name = b"a/b"
    device.client._sock.sendall(bytes([0xA0, 4 + len(name), 0, 9, 0, len(name)]) + name)
    assert device.closed.wait(20)


def test_cocoa_mqtt_261_a_subscribe_without_its_flags_closes_the_connection(connected: Any) -> None:
    device = connected()
    assert device.is_taken()
    device.client._sock.sendall(bytes([0x80, 8, 0, 9, 0, 3]) + b"a/b" + b"\1")
    assert device.closed.wait(20)


def a_template(iot: Any, resources: dict[str, Any]) -> str:
    name = f"report-{next(NUMBERS)}"
    parameters = {"SerialNumber": {"Type": "String"}, "AWS::IoT::Certificate::Id": {"Type": "String"}}
    body = json.dumps({"Parameters": parameters, "Resources": resources})
    iot.create_provisioning_template(templateName=name, templateBody=body, enabled=True, provisioningRoleArn=ROLE)
    return name


CERTIFICATE = {
    "Type": "AWS::IoT::Certificate",
    "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "Active"},
}


def registered(device: Device, template: str, **changed: Any) -> tuple[str, Any]:
    how, made = device.ask("$aws/certificates/create/json", {})
    assert how == "accepted", made
    asked = {"certificateOwnershipToken": made["certificateOwnershipToken"], "parameters": {"SerialNumber": "1"}}
    return device.ask(f"$aws/provisioning-templates/{template}/provision/json", asked | changed)


def test_embedded_c_1821_without_a_thing_in_the_template_the_answer_has_no_name(iot: Any, connected: Any) -> None:
    how, told = registered(connected(), a_template(iot, {"certificate": CERTIFICATE}))
    assert (how, told) == ("accepted", {"deviceConfiguration": {}})


def test_cpp_v2_295_a_policy_that_does_not_exist_is_named(iot: Any, connected: Any) -> None:
    policy = {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "nobody-made-it"}}
    how, told = registered(connected(), a_template(iot, {"certificate": CERTIFICATE, "policy": policy}))
    assert (how, told["statusCode"]) == ("rejected", 400)
    assert "nobody-made-it" in told["errorMessage"]


def test_js_v2_69_a_registration_without_its_token_says_so(iot: Any, connected: Any) -> None:
    template = a_template(iot, {"certificate": CERTIFICATE})
    how, told = registered(connected(), template, certificateOwnershipToken="")
    assert (how, told["statusCode"], told["errorCode"]) == ("rejected", 400, "InvalidCertificateOwnershipToken")


def test_aws_sdk_js_3617_a_thing_is_registered_by_the_body_as_it_was_written(iot: Any) -> None:
    iot.create_thing_group(thingGroupName="mygroup")
    iot.create_thing_type(thingTypeName="testname")
    name = f"report-{next(NUMBERS)}"
    certificate = iot.create_keys_and_certificate(setAsActive=True)["certificateId"]
    overrides = {"AttributePayload": "MERGE", "ThingGroups": "DO_NOTHING", "ThingTypeName": "REPLACE"}
    properties = {
        "AttributePayload": {},
        "ThingGroups": ["mygroup"],
        "ThingName": {"Ref": "SerialNumber"},
        "ThingTypeName": "testname",
    }
    body = {
        "Parameters": {
            "Attr1": {"Type": "String"},
            "SerialNumber": {"Type": "String"},
            "AWS::IoT::Certificate::Id": {"Type": "String"},
        },
        "Resources": {
            "certificate": CERTIFICATE,
            "thing": {"OverrideSettings": overrides, "Properties": properties, "Type": "AWS::IoT::Thing"},
        },
        "DeviceConfiguration": {},
    }
    given = {"SerialNumber": name, "Attr1": "a", "AWS::IoT::Certificate::Id": certificate}
    made = iot.register_thing(templateBody=json.dumps(body), parameters=given)
    assert made["resourceArns"]["thing"] == f"{ARN}thing/{name}"
    assert iot.describe_thing(thingName=name)["thingTypeName"] == "testname"


@pytest.mark.parametrize("body", ['""', "[]", "{}", "{"])
def test_boto3_2903_a_body_that_is_no_template_is_refused(iot: Any, body: str) -> None:
    with pytest.raises(ClientError) as caught:
        iot.register_thing(templateBody=body, parameters={"ThingName": "a"})
    assert caught.value.response["Error"]["Code"] == "InvalidRequestException"


def test_device_sdk_js_68_a_shadow_that_is_made_again_goes_on_counting(client: Callable[..., Any], iot: Any) -> None:
    data, name = client("iot-data"), f"report-{next(NUMBERS)}"
    iot.create_thing(thingName=name)

    def update() -> int:
        told = data.update_thing_shadow(thingName=name, payload=b'{"state": {"reported": {"a": 1}}}')
        return int(json.loads(told["payload"].read())["version"])

    assert update() == 1
    data.delete_thing_shadow(thingName=name)
    assert update() == 2


def test_localstack_6379_a_filter_with_a_template_in_it_is_text(iot: Any) -> None:
    sql = "SELECT * AS payload, topic() AS topic FROM 'spBv1.0/plant/${topicType}/#'"
    action = {"republish": {"roleArn": ROLE, "topic": "seen"}}
    iot.create_topic_rule(ruleName="report_6379", topicRulePayload={"sql": sql, "actions": [action]})
    assert iot.get_topic_rule(ruleName="report_6379")["rule"]["sql"] == sql
