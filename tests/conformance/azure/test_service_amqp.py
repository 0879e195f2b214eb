"""Services over AMQP: unmodified azure-iot-hub sends messages to devices, and uamqp receives their feedback."""

from dataclasses import dataclass

import pytest

from birthmark.testing.cloud import Cloud
from support.azure import fresh_servers
from support.azure.clients import run_python
from support.server.servers import RunningServer

server, birthmark_server = fresh_servers.server, fresh_servers.birthmark_server
pytestmark = pytest.mark.system

SENDS = """
import os, sys
from azure.iot.hub import IoTHubRegistryManager
manager = IoTHubRegistryManager.from_connection_string(os.environ["IOTHUB_CONNECTION_STRING"])
"""
RECEIVES = """
import base64, hashlib, hmac, os, time, urllib.parse
import uamqp
parts = dict(part.split("=", 1) for part in os.environ["IOTHUB_CONNECTION_STRING"].split(";"))
host, policy = parts["HostName"].split(":")[0], parts["SharedAccessKeyName"]
resource, expiry = urllib.parse.quote(host, safe=""), int(time.time()) + 3600
signed = hmac.digest(base64.b64decode(parts["SharedAccessKey"]), f"{resource}\\n{expiry}".encode(), "sha256")
signature = urllib.parse.quote(base64.b64encode(signed), safe="")
token = f"SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={policy}"
user = f"{policy}@sas.root.{host.split('.')[0]}"
auth = uamqp.authentication.SASLPlain(host, user, token, port=5671, verify=os.environ["SSL_CERT_FILE"])
client = uamqp.ReceiveClient(f"amqps://{host}/messages/serviceBound/feedback", auth=auth, auto_complete=False)
"""


def run(cloud: Cloud, body: str) -> list[str]:
    done = run_python(body, cloud.environment())
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout.splitlines()


RECEIVED = """
from azure.iot.device import IoTHubDeviceClient
client = IoTHubDeviceClient.create_from_connection_string(DEVICE)
client.connect()
message = client.receive_message(timeout=20)
print(message.data.decode(), message.message_id, message.correlation_id, message.content_type)
print(message.custom_properties)
client.shutdown()
"""


def test_a_device_receives_the_message_with_its_properties(birthmark_cloud: Cloud) -> None:
    device = birthmark_cloud.azure_device("d1", at="hub", auth="key")
    sent = {"messageId": "m1", "correlationId": "c1", "contentType": "text/plain", "site": "north"}
    body = (
        SENDS + f"manager.send_c2d_message('d1', 'hello', {sent})\nDEVICE = {device.connection_string!r}\n" + RECEIVED
    )
    assert run(birthmark_cloud, body) == ["hello m1 c1 text/plain", "{'site': 'north'}"]


@dataclass(frozen=True)
class Refused:
    """A message that is refused: its script, and the code of the refusal."""

    script: str
    code: str


@pytest.mark.parametrize(
    "refused",
    [
        Refused("manager.send_c2d_message('nobody', 'hello')", "iothub.unknown_device"),
        Refused("manager.send_c2d_message('d1', 'x' * 70000)", "iothub.c2d_invalid"),
        Refused("manager.send_c2d_message('d1', 'x', {'iothub-ack': 'perhaps'})", "iothub.c2d_invalid"),
        Refused("[manager.send_c2d_message('d1', 'x') for _ in range(51)]", "iothub.inbox_full"),
    ],
    ids=lambda refused: refused.code,
)
def test_a_refused_message_raises_and_is_explained(birthmark_cloud: Cloud, refused: Refused) -> None:
    birthmark_cloud.azure_device("d1", at="hub")
    body = f"""
try:
    {refused.script}
except Exception as error:
    print(error)
"""
    assert run(birthmark_cloud, SENDS + body) == ["C2D message send failure"]
    assert birthmark_cloud.why(code=refused.code)


def test_a_wrong_key_is_refused(birthmark_cloud: Cloud) -> None:
    body = """
wrong = os.environ["IOTHUB_CONNECTION_STRING"].rsplit("SharedAccessKey=", 1)[0] + "SharedAccessKey=AAAA"
manager = IoTHubRegistryManager.from_connection_string(wrong)
try:
    manager.send_c2d_message("d1", "hello")
except Exception as error:
    print(type(error).__name__)
"""
    assert run(birthmark_cloud, SENDS + body)[-1] in {"TokenAuthFailure", "AuthenticationException"}
    assert birthmark_cloud.why(code="sas.signature_mismatch")


def test_a_policy_without_the_right_is_refused(birthmark_cloud: Cloud, server: RunningServer) -> None:
    key = server.rows("hub", "key", "--policy", "registryRead")[0]["primary_connection_string"]
    body = f"""
manager = IoTHubRegistryManager.from_connection_string({key!r})
try:
    manager.send_c2d_message("d1", "hello")
except Exception as error:
    print(type(error).__name__)
"""
    assert run(birthmark_cloud, SENDS + body)[-1] in {"TokenAuthFailure", "AuthenticationException"}


def feedback(server: RunningServer, cloud: Cloud, *texts: str) -> None:
    cloud.azure_device("fed-back", at="hub")
    for text in texts:
        server.run("hub", "c2d", "fed-back", text, "--feedback", "full")
    server.run("hub", "c2d", "fed-back", "--purge")


def test_accepted_feedback_is_received_once(birthmark_cloud: Cloud, server: RunningServer) -> None:
    feedback(server, birthmark_cloud, "first", "second")
    body = """
import json
for _ in range(2):
    (message,) = client.receive_message_batch(max_batch_size=1, timeout=5000)
    print(json.loads(b"".join(message.get_data()))[0]["statusCode"], message.properties.content_type.decode())
    message.accept()
print(len(client.receive_message_batch(timeout=2000)))
client.close()
"""
    kind = "application/vnd.microsoft.iothub.feedback.json"
    assert run(birthmark_cloud, RECEIVES + body) == [f"Purged {kind}", f"Purged {kind}", "0"]
    assert server.rows("hub", "feedback") == []


@pytest.mark.parametrize("ends", ["message.release()", "message.modify(True, False)", "pass"])
def test_unaccepted_feedback_is_received_again(birthmark_cloud: Cloud, server: RunningServer, ends: str) -> None:
    feedback(server, birthmark_cloud, "first")
    body = f"""
(message,) = client.receive_message_batch(max_batch_size=1, timeout=5000)
{ends}
client.close()
time.sleep(1)
auth = uamqp.authentication.SASLPlain(host, user, token, port=5671, verify=os.environ["SSL_CERT_FILE"])
again = uamqp.ReceiveClient(f"amqps://{{host}}/messages/servicebound/feedback", auth=auth, auto_complete=False)
(message,) = again.receive_message_batch(max_batch_size=1, timeout=5000)
message.accept()
time.sleep(1)
again.close()
"""
    run(birthmark_cloud, RECEIVES + body)
    assert server.rows("hub", "feedback") == []


def test_rejected_feedback_is_dropped(birthmark_cloud: Cloud, server: RunningServer) -> None:
    feedback(server, birthmark_cloud, "first")
    body = """
(message,) = client.receive_message_batch(max_batch_size=1, timeout=5000)
message.reject()
time.sleep(1)
client.close()
"""
    run(birthmark_cloud, RECEIVES + body)
    assert server.rows("hub", "feedback") == []


REDIRECTS = """
import asyncio, os
from azure.eventhub._pyamqp import ReceiveClient
from azure.eventhub._pyamqp.authentication import SASTokenAuth
from azure.eventhub._pyamqp.error import AMQPLinkRedirect
from azure.eventhub import EventHubConsumerClient
parts = dict(part.split("=", 1) for part in os.environ["IOTHUB_CONNECTION_STRING"].split(";"))
host = parts["HostName"].split(":")[0]
auth = SASTokenAuth(host, host, parts["SharedAccessKeyName"], parts["SharedAccessKey"])
ca = os.environ["SSL_CERT_FILE"]
source = f"amqps://{host}/messages/events/$management"
client = ReceiveClient(host, source, auth=auth, connection_verify=ca, retry_total=0)
try:
    client.open()
    while not client.client_ready():
        pass
    client.receive_message_batch(timeout=5)
except AMQPLinkRedirect as redirect:
    told = redirect
text = lambda value: value if isinstance(value, str) else value.decode()
print(text(told.hostname), told.port)
entity = text(told.address).partition("://")[2].partition("/")[2].removesuffix("/$management")
string = f"Endpoint=sb://{text(told.hostname)}/;SharedAccessKeyName={parts['SharedAccessKeyName']};"
string += f"SharedAccessKey={parts['SharedAccessKey']};EntityPath={entity}"
consumer = EventHubConsumerClient.from_connection_string(string, "$Default", connection_verify=ca)
print(consumer.get_partition_ids())
consumer.close()
"""


def test_the_steps_of_az_iot_hub_monitor_events_lead_to_the_partitions(birthmark_cloud: Cloud) -> None:
    """The extension from 0.28 asks the hub's host for its events, and follows the redirect."""
    told = run(birthmark_cloud, REDIRECTS)
    assert told == [f"{birthmark_cloud.host} 5671", "['0', '1', '2', '3']"]


EARLIER = """
from uamqp.errors import LinkRedirect
reader = uamqp.ReceiveClient(f"amqps://{host}/messages/events/$management", auth=auth)
try:
    reader.receive_message_batch(timeout=5000)
except LinkRedirect as redirect:
    print(redirect.hostname.decode(), redirect.address.decode().split("amqps://")[1].split("/")[1])
"""


def test_the_steps_of_earlier_extensions_are_redirected_as_well(birthmark_cloud: Cloud) -> None:
    assert run(birthmark_cloud, RECEIVES + EARLIER) == [f"{birthmark_cloud.host} birthmark"]
