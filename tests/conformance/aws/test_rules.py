"""Topic rules by boto3, the AWS CLI and paho: what is selected arrives where the rule's action says, and only there.

Receivers are real: an HTTP server, NATS, mosquitto, a function, files.
"""

import asyncio
import base64
import json
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import nats
import paho.mqtt.client as paho
import pytest
from botocore.exceptions import ClientError

from support.aws.clients import Account, until
from support.aws.function_server import ARN, FunctionServer
from support.server.servers import RunningServer
from support.services.nats_server import a_nats
from support.services.receivers import Receiver, a_mosquitto

pytestmark = pytest.mark.system
ROLE = "arn:aws:iam::000000000000:role/rules"
SERVERS = "arn:aws:iot:us-east-1:000000000000:ruledestination/vpc/"
NUMBERS = count(1)


@pytest.fixture(scope="module")
def functions() -> Iterator[FunctionServer]:
    with FunctionServer() as functions:
        yield functions


@pytest.fixture(scope="module")
def nats_url() -> Iterator[str]:
    with a_nats() as url:
        yield url


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with a_mosquitto(tmp_path_factory.mktemp("mosquitto")) as port:
        yield port


@pytest.fixture(scope="module")
def birthmark_config(
    tmp_path_factory: pytest.TempPathFactory, functions: FunctionServer, nats_url: str, mosquitto: int
) -> str:
    config = functions.config(tmp_path_factory.mktemp("rules"), "told")
    return config + f'[servers.plant]\nurl = "{nats_url}"\n[servers.broker]\nurl = "mqtt://127.0.0.1:{mosquitto}"\n'


@pytest.fixture
def account(account: Account) -> Iterator[Account]:
    yield account
    for rule in account.iot.list_topic_rules()["rules"]:
        account.iot.delete_topic_rule(ruleName=rule["ruleName"])
    for one in account.iot.list_topic_rule_destinations()["destinationSummaries"]:
        account.iot.delete_topic_rule_destination(arn=one["arn"])


@pytest.fixture
def device(account: Account) -> Any:
    return account.client()


def a_rule(account: Account, sql: str, *actions: dict[str, Any], **more: Any) -> str:
    name = more.pop("name", f"rule{next(NUMBERS)}")
    payload = {"sql": sql, "actions": list(actions), "awsIotSqlVersion": "2016-03-23", **more}
    account.iot.create_topic_rule(ruleName=name, topicRulePayload=payload)
    return str(name)


def republish(topic: str, **more: Any) -> dict[str, Any]:
    return {"republish": {"topic": topic, "roleArn": ROLE, **more}}


def confirmed(account: Account, receiver: Receiver, path: str) -> str:
    """Make a destination, and confirm it as its receiver would; return its URL."""
    url = receiver.url(path)
    before = len(receiver.got)
    account.iot.create_topic_rule_destination(
        destinationConfiguration={"httpUrlConfiguration": {"confirmationUrl": url}}
    )
    until(lambda: len(receiver.got) > before)
    asked = json.loads(receiver.got[-1].body)
    account.iot.confirm_topic_rule_destination(confirmationToken=asked["confirmationToken"])
    receiver.got.clear()
    return url


# ---- republish


def test_what_a_rule_selects_is_republished(account: Account) -> None:
    a_rule(account, "SELECT temperature AS t FROM 'in/+' WHERE temperature > 30", republish("out/${topic(2)}"))
    (listener,) = account.subscribed("out/#", 1)
    listener.publish("in/one", json.dumps({"temperature": 20}), 1)
    listener.publish("in/two", json.dumps({"temperature": 40}), 1)
    until(lambda: listener.got == [("out/two", '{"t":40}')])


def test_a_rule_knows_who_published(account: Account) -> None:
    sql = "SELECT clientid() AS client, principal() AS by, topic() AS topic FROM 'who'"
    a_rule(account, sql, republish("told"))
    (listener,) = account.subscribed("told", 1)
    device = account.client("a-device")
    device.publish("who", "{}", 1)
    until(lambda: listener.got)
    assert json.loads(listener.got[0][1]) == {"client": "a-device", "by": account.certificate_id, "topic": "who"}


def test_what_is_republished_has_the_properties_of_its_headers(account: Account) -> None:
    headers = {"contentType": "application/json", "userProperties": [{"key": "from", "value": "${topic()}"}]}
    a_rule(account, "SELECT * FROM 'h'", republish("with/headers", qos=1, headers=headers))
    device = account.client()
    got: list[Any] = []
    listener = paho.Client(client_id="five", protocol=paho.MQTTv5)
    context = ssl.create_default_context(cafile=account.cloud.ca_file)
    context.load_cert_chain(*account.files)
    listener.tls_set_context(context)
    listener.on_message = lambda _c, _d, message: got.append(message)
    ready = threading.Event()
    listener.on_subscribe = lambda *_: ready.set()
    listener.on_connect = lambda *_: listener.subscribe("with/#", 1)
    listener.connect(account.endpoint, 8883)
    listener.loop_start()
    assert ready.wait(20)
    device.publish("h", '{"a":1}', 1)
    until(lambda: got)
    assert (got[0].qos, got[0].payload) == (1, b'{"a":1}')
    assert got[0].properties.ContentType == "application/json"
    assert got[0].properties.UserProperty == [("from", "h")]
    listener.disconnect()
    listener.loop_stop()


def test_a_rule_may_update_a_shadow_by_its_reserved_topic(account: Account, device: Any) -> None:
    account.iot.create_thing(thingName="pump")
    topic = "$$aws/things/${topic(2)}/shadow/update"
    a_rule(account, "SELECT {'reported': {'t': t}} AS state FROM 'report/+'", republish(topic))
    device.publish("report/pump", '{"t":7}', 1)
    data = _data(account)
    until(lambda: _shadow(data, "pump") == {"t": 7})


def _data(account: Account) -> Any:
    return account.cloud.boto3("iot-data")


def _shadow(data: Any, thing: str) -> Any:
    try:
        return json.loads(data.get_thing_shadow(thingName=thing)["payload"].read())["state"].get("reported")
    except ClientError:
        return None


def test_a_rule_sees_what_is_published_over_https_and_what_the_cloud_says(account: Account) -> None:
    a_rule(account, "SELECT * FROM 'https'", republish("seen/https"))
    a_rule(account, "SELECT clientId FROM '$aws/events/presence/connected/+'", republish("seen/presence"))
    (listener,) = account.subscribed("seen/#", 1)
    _data(account).publish(topic="https", qos=1, payload=b'{"a":1}')
    account.client("newcomer")
    until(lambda: {("seen/https", '{"a":1}'), ("seen/presence", '{"clientId":"newcomer"}')} <= set(listener.got))


def test_a_rule_asks_a_shadow(account: Account, device: Any) -> None:
    account.iot.create_thing(thingName="boiler")
    _data(account).update_thing_shadow(thingName="boiler", payload='{"state":{"desired":{"limit":5}}}')
    sql = f"SELECT v FROM 'limit' WHERE v > get_thing_shadow('boiler', '{ROLE}').state.desired.limit"
    a_rule(account, sql, republish("over"))
    (listener,) = account.subscribed("over", 1)
    device.publish("limit", '{"v":4}', 1)
    device.publish("limit", '{"v":6}', 1)
    until(lambda: listener.got == [("over", '{"v":6}')])


def test_a_loop_through_republish_is_stopped_and_named(account: Account, device: Any, server: RunningServer) -> None:
    one = a_rule(account, "SELECT * FROM 'loop/a'", republish("loop/b"))
    other = a_rule(account, "SELECT * FROM 'loop/b'", republish("loop/a"))
    (listener,) = account.subscribed("loop/#", 1)
    device.publish("loop/a", "{}", 1)
    until(lambda: "rule_loop" in server.log())
    assert sorted(topic for topic, _ in listener.got) == ["loop/a", "loop/a", "loop/b"]
    del one, other


def test_basic_ingest_reaches_one_rule_and_no_subscriber(account: Account, device: Any) -> None:
    name = a_rule(account, "SELECT *, topic() AS topic FROM 'never/matched'", republish("ingested"))
    (listener,) = account.subscribed("#", 1)
    device.publish(f"$aws/rules/{name}/deep/topic", '{"a":1}', 1)
    until(lambda: ("ingested", '{"a":1,"topic":"deep/topic"}') in listener.got)
    assert [topic for topic, _ in listener.got] == ["ingested"]


# ---- HTTP


def test_a_confirmed_address_gets_what_a_rule_selects(account: Account, device: Any) -> None:
    with Receiver() as receiver:
        url = confirmed(account, receiver, "/hook")
        headers = [{"key": "x-topic", "value": "${topic()}"}]
        a_rule(account, "SELECT a FROM 'to/http'", {"http": {"url": url, "headers": headers}})
        device.publish("to/http", '{"a":1,"b":2}', 1)
        until(lambda: receiver.bodies("/hook") == [b'{"a":1}'])
        assert receiver.got[0].headers["x-topic"] == "to/http"


def test_a_receiver_confirms_by_the_link_that_it_is_sent(account: Account, server: RunningServer) -> None:
    with Receiver() as receiver:
        made = account.iot.create_topic_rule_destination(
            destinationConfiguration={"httpUrlConfiguration": {"confirmationUrl": receiver.url("/link")}}
        )["topicRuleDestination"]
        assert made["status"] == "IN_PROGRESS"
        until(lambda: receiver.got)
        asked = json.loads(receiver.got[0].body)
        assert asked["arn"] == made["arn"]
        assert asked["messageType"] == receiver.got[0].headers["x-amz-rules-engine-message-type"]
        context = ssl.create_default_context(cafile=account.cloud.ca_file)
        with urllib.request.urlopen(asked["enableUrl"], context=context) as answer:
            assert answer.status == 200
        found = account.iot.get_topic_rule_destination(arn=made["arn"])["topicRuleDestination"]
        assert (found["status"], found["httpUrlProperties"]) == ("ENABLED", {"confirmationUrl": receiver.url("/link")})
        account.iot.update_topic_rule_destination(arn=made["arn"], status="DISABLED")
        (listed,) = account.iot.list_topic_rule_destinations()["destinationSummaries"]
        assert listed["status"] == "DISABLED"
        account.iot.update_topic_rule_destination(arn=made["arn"], status="ENABLED")


def test_an_address_that_never_confirmed_gets_nothing(account: Account, device: Any, server: RunningServer) -> None:
    with Receiver() as receiver:
        a_rule(account, "SELECT * FROM 'unasked'", {"http": {"url": receiver.url("/unasked")}})
        device.publish("unasked", "{}", 1)
        until(lambda: "awsiot.rule_action_failed" in server.log())
        assert receiver.got == []


def test_what_a_receiver_refuses_goes_to_the_error_action(account: Account, device: Any) -> None:
    with Receiver() as receiver:
        url = confirmed(account, receiver, "/refuses")
        receiver.status = 400
        a_rule(account, "SELECT * FROM 'refused'", {"http": {"url": url}}, errorAction=republish("failures"))
        (listener,) = account.subscribed("failures", 1)
        device.publish("refused", '{"a":1}', 1)
        until(lambda: listener.got)
        told = json.loads(listener.got[0][1])
        assert base64.b64decode(told["base64OriginalPayload"]) == b'{"a":1}'
        assert (told["topic"], told["failures"][0]["failedAction"]) == ("refused", "HttpAction")
        assert "400" in told["failures"][0]["errorMessage"]


def test_a_place_that_a_device_made_up_and_is_not_there_is_tried_once(account: Account, device: Any) -> None:
    with Receiver() as receiver:
        url = confirmed(account, receiver, "/base")
        http = {"http": {"url": receiver.url("/${name}"), "confirmationUrl": url}}
        a_rule(account, "SELECT name FROM 'made/up'", http, errorAction=republish("made/failed"))
        (listener,) = account.subscribed("made/failed", 1)
        receiver.status = 404
        device.publish("made/up", '{"name":"nowhere"}', 1)
        until(lambda: listener.got)
        assert len(receiver.got) == 1


def test_a_destination_that_was_switched_off_is_not_switched_on_by_its_link(account: Account) -> None:
    with Receiver() as receiver:
        made = account.iot.create_topic_rule_destination(
            destinationConfiguration={"httpUrlConfiguration": {"confirmationUrl": receiver.url("/off")}}
        )["topicRuleDestination"]
        until(lambda: receiver.got)
        account.iot.update_topic_rule_destination(arn=made["arn"], status="DISABLED")
        token = json.loads(receiver.got[0].body)["confirmationToken"]
        with pytest.raises(ClientError, match="not found"):
            account.iot.confirm_topic_rule_destination(confirmationToken=token)
        found = account.iot.get_topic_rule_destination(arn=made["arn"])["topicRuleDestination"]
        assert found["status"] == "DISABLED"


def test_a_receiver_that_is_away_for_a_while_gets_everything(account: Account, device: Any) -> None:
    with Receiver() as receiver:
        url = confirmed(account, receiver, "/away")
        receiver.status = 503
        a_rule(account, "SELECT * FROM 'patient'", {"http": {"url": url}})
        for number in range(5):
            device.publish("patient", str(number), 1)
        until(lambda: receiver.bodies("/away", 503))
        receiver.status = 200
        until(lambda: sorted(set(receiver.bodies("/away", 200))) == [b"0", b"1", b"2", b"3", b"4"])


def test_nothing_follows_a_redirect_and_no_address_inside_is_called(account: Account, device: Any) -> None:
    with Receiver() as receiver, Receiver() as other:
        url = confirmed(account, receiver, "/moved")
        receiver.status, receiver.location = 302, other.url("/elsewhere")
        a_rule(account, "SELECT * FROM 'moved'", {"http": {"url": url}}, errorAction=republish("moved/failed"))
        (listener,) = account.subscribed("moved/failed", 1)
        device.publish("moved", "{}", 1)
        until(lambda: listener.got)
        assert other.got == []
    with pytest.raises(ClientError, match="is private"):
        account.iot.create_topic_rule_destination(
            destinationConfiguration={"httpUrlConfiguration": {"confirmationUrl": "https://169.254.169.254/x"}}
        )


# ---- what stands for services


def test_an_object_of_a_bucket_is_a_file(account: Account, device: Any, server: RunningServer) -> None:
    s3 = {"s3": {"bucketName": "readings", "key": "${topic(2)}/${id}.json", "roleArn": ROLE}}
    a_rule(account, "SELECT * FROM 'store/+'", s3)
    device.publish("store/pump", '{"id":7}', 1)
    file = server.data / "buckets" / "readings" / "pump" / "7.json"
    until(file.exists)
    assert file.read_bytes() == b'{"id":7}'


def test_a_key_that_leads_out_of_its_bucket_is_refused(account: Account, device: Any, server: RunningServer) -> None:
    s3 = {"s3": {"bucketName": "readings", "key": "${key}", "roleArn": ROLE}}
    a_rule(account, "SELECT * FROM 'escape'", s3, errorAction=republish("escaped"))
    (listener,) = account.subscribed("escaped", 1)
    for key in ("../../birthmark.db", "/etc/passwd", "a/../../b", "..", "a//b"):
        device.publish("escape", json.dumps({"key": key}), 1)
    until(lambda: len(listener.got) == 5)
    outside = [one for one in (server.data / "buckets").rglob("*") if one.is_file() and b"escape" in one.read_bytes()]
    assert outside == []


def test_a_delivery_stream_is_a_file_of_lines(account: Account, device: Any, server: RunningServer) -> None:
    firehose = {"firehose": {"deliveryStreamName": "lines", "separator": "\n", "roleArn": ROLE}}
    a_rule(account, "SELECT a FROM 'lines'", firehose)
    for number in range(3):
        device.publish("lines", json.dumps({"a": number}), 1)
    file = server.data / "buckets" / "lines" / "records"
    until(lambda: file.exists() and file.read_text() == '{"a":0}\n{"a":1}\n{"a":2}\n')


def test_a_function_is_called_with_what_is_selected(account: Account, device: Any, functions: FunctionServer) -> None:
    functions.answers["told"] = lambda _event: {}
    functions.events.clear()
    a_rule(account, "SELECT a FROM 'call'", {"lambda": {"functionArn": ARN + "told"}})
    device.publish("call", '{"a":1,"b":2}', 1)
    until(lambda: functions.events)
    assert functions.events[-1] == {"a": 1}


def kafka(server: str, topic: str) -> dict[str, Any]:
    return {"kafka": {"destinationArn": SERVERS + server, "topic": topic, "clientProperties": {}}}


def test_nats_gets_what_a_rule_selects(account: Account, device: Any, nats_url: str) -> None:
    a_rule(account, "SELECT a FROM 'to/nats'", kafka("plant", "readings.${topic(2)}"))

    async def listen() -> tuple[str, bytes]:
        client = await nats.connect(nats_url)
        subscription = await client.subscribe("readings.>")
        await client.flush()
        device.publish("to/nats", '{"a":1}', 1)
        message = await subscription.next_msg(timeout=20)
        await client.close()
        return message.subject, message.data

    assert asyncio.run(listen()) == ("readings.nats", b'{"a":1}')


def test_another_broker_gets_what_a_rule_selects(account: Account, device: Any, mosquitto: int) -> None:
    a_rule(account, "SELECT a FROM 'to/broker'", kafka("broker", "readings/${topic(2)}"))
    got: list[tuple[str, bytes]] = []
    ready = threading.Event()
    listener = paho.Client(client_id="listener")
    listener.on_message = lambda _c, _d, message: got.append((message.topic, message.payload))
    listener.on_subscribe = lambda *_: ready.set()
    listener.connect("127.0.0.1", mosquitto)
    listener.subscribe("readings/#", 1)
    listener.loop_start()
    assert ready.wait(20)
    device.publish("to/broker", '{"a":1}', 1)
    until(lambda: got == [("readings/broker", b'{"a":1}')])
    listener.disconnect()
    listener.loop_stop()


def test_a_server_that_the_configuration_does_not_name_is_refused(account: Account) -> None:
    with pytest.raises(ClientError, match="not mapped to a server"):
        a_rule(account, "SELECT * FROM 'x'", kafka("nowhere", "x"))


# ---- on record


def test_a_rule_is_made_shown_listed_replaced_switched_and_removed(account: Account, device: Any) -> None:
    name = a_rule(account, "SELECT * FROM 'life/+'", republish("lived"), description="what it is for")
    shown = account.iot.get_topic_rule(ruleName=name)
    assert shown["ruleArn"].endswith(f":rule/{name}")
    assert shown["rule"]["sql"] == "SELECT * FROM 'life/+'"
    assert shown["rule"]["description"] == "what it is for"
    assert shown["rule"]["actions"] == [republish("lived")]
    (listed,) = account.iot.list_topic_rules(topic="life/a")["rules"]
    assert (listed["ruleName"], listed["topicPattern"], listed["ruleDisabled"]) == (name, "life/+", False)
    assert account.iot.list_topic_rules(topic="other")["rules"] == []
    account.iot.disable_topic_rule(ruleName=name)
    assert [one["ruleName"] for one in account.iot.list_topic_rules(ruleDisabled=True)["rules"]] == [name]
    (listener,) = account.subscribed("lived", 1)
    device.publish("life/a", "1", 1).wait_for_publish()
    account.iot.enable_topic_rule(ruleName=name)
    device.publish("life/a", "2", 1)
    until(lambda: listener.got == [("lived", "2")])
    replaced = {"sql": "SELECT * FROM 'second'", "actions": [republish("lived")]}
    account.iot.replace_topic_rule(ruleName=name, topicRulePayload=replaced)
    device.publish("life/a", "3", 1)
    device.publish("second", "4", 1)
    until(lambda: listener.got == [("lived", "2"), ("lived", "4")])
    account.iot.delete_topic_rule(ruleName=name)
    with pytest.raises(ClientError, match="UnauthorizedException"):
        account.iot.get_topic_rule(ruleName=name)


def test_a_rule_that_exists_is_not_made_again(account: Account) -> None:
    name = a_rule(account, "SELECT * FROM 'x'")
    with pytest.raises(account.iot.exceptions.ResourceAlreadyExistsException):
        a_rule(account, "SELECT * FROM 'x'", name=name)


def test_sql_that_is_none_is_told_where(account: Account) -> None:
    with pytest.raises(account.iot.exceptions.SqlParseException, match="character"):
        a_rule(account, "SELECT FROM WHERE")


@pytest.mark.parametrize(
    "action",
    [
        {"dynamoDBv2": {"roleArn": ROLE, "putItem": {"tableName": "t"}}},
        {"sns": {"targetArn": "arn:aws:sns:us-east-1:000000000000:t", "roleArn": ROLE}},
        {"sqs": {"queueUrl": "https://sqs.example.com/1/q", "roleArn": ROLE}},
        {"stepFunctions": {"stateMachineName": "s", "roleArn": ROLE}},
    ],
    ids=lambda action: next(iter(action)),
)
def test_an_action_for_which_nothing_stands_is_refused_by_name(account: Account, action: dict[str, Any]) -> None:
    (name,) = action
    with pytest.raises(ClientError, match=name):
        a_rule(account, "SELECT * FROM 'x'", action)
    assert account.iot.list_topic_rules()["rules"] == []


def test_rules_have_tags(account: Account) -> None:
    payload = {"sql": "SELECT * FROM 'x'", "actions": []}
    account.iot.create_topic_rule(ruleName="tagged", topicRulePayload=payload, tags="site=a&line=1")
    arn = account.iot.get_topic_rule(ruleName="tagged")["ruleArn"]
    tags = account.iot.list_tags_for_resource(resourceArn=arn)["tags"]
    assert tags == [{"Key": "line", "Value": "1"}, {"Key": "site", "Value": "a"}]


def test_the_aws_cli_makes_a_rule_from_a_file(
    account: Account, device: Any, server: RunningServer, tmp_path: Path
) -> None:
    file = tmp_path / "rule.json"
    file.write_text(json.dumps({"sql": "SELECT * FROM 'cli'", "actions": [republish("by/cli")]}))
    aws = Path(sys.executable).with_name("aws")
    command = [str(aws), "iot", "create-topic-rule", "--rule-name", "cli"]
    subprocess.run([*command, "--topic-rule-payload", f"file://{file}"], check=True, env=server.environment)
    (listener,) = account.subscribed("by/cli", 1)
    device.publish("cli", "{}", 1)
    until(lambda: listener.got == [("by/cli", "{}")])
