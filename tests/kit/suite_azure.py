"""What somebody's own tests look like: nothing but the fixtures and Microsoft's SDK, as it is installed.

It is copied into an empty directory, and run there by pytest (tests/system/test_kit.py).
"""

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from azure.iot.device import Message

from birthmark.testing.amqp_device import AmqpDeviceError

PROGRAM = """
import os
from azure.iot.device import IoTHubDeviceClient, Message, ProvisioningDeviceClient, X509
x509 = X509(os.environ["X509_CERT_FILE"], os.environ["X509_KEY_FILE"])
state = ProvisioningDeviceClient.create_from_x509_certificate(
    provisioning_host=os.environ["PROVISIONING_HOST"], registration_id=os.environ["PROVISIONING_REGISTRATION_ID"],
    id_scope=os.environ["PROVISIONING_IDSCOPE"], x509=x509,
).register().registration_state
client = IoTHubDeviceClient.create_from_x509_certificate(x509, state.assigned_hub, state.device_id)
client.connect()
client.send_message(Message("from a program"))
client.shutdown()
"""


@pytest.mark.parametrize("number", range(4))
def test_a_device_registers_and_sends_in_this_process(birthmark_cloud, azure_device, number):
    assert azure_device.register().status == "assigned"
    client = azure_device.client()
    client.connect()
    client.send_message(Message(f"hello {number}"))
    client.shutdown()
    (message,) = birthmark_cloud.messages(azure_device, at_least=1)
    assert message["body"] == f"hello {number}"  # and nothing of the test before


def test_a_program_of_ones_own_reaches_it_by_its_environment(birthmark_cloud, azure_device):
    subprocess.run([sys.executable, "-c", PROGRAM], env=azure_device.environment(), check=True, timeout=60)
    assert [one["body"] for one in birthmark_cloud.messages(azure_device)] == ["from a program"]


def test_a_device_with_a_key_registers_and_sends(birthmark_cloud):
    device = birthmark_cloud.azure_device("keyed", auth="key")
    assert device.register().registration_state.device_id == "keyed"
    client = device.client()
    client.connect()
    client.send_message(Message("by key"))
    client.shutdown()
    assert len(device.messages(at_least=1)) == 1


def test_the_sdks_other_kind_is_there_too(birthmark_cloud, azure_device):
    async def speak():
        await azure_device.provisioning_client(is_async=True).register()
        client = azure_device.client(is_async=True, websockets=birthmark_cloud.endpoints["iothub"]["https_port"] == 443)
        await client.connect()
        await client.send_message(Message("later"))
        await client.shutdown()

    asyncio.run(speak())
    assert azure_device.messages(at_least=1)[0]["body"] == "later"


def test_a_device_of_the_hub_needs_no_registration(birthmark_cloud):
    for auth in ("x509", "key"):
        device = birthmark_cloud.azure_device(f"hub-{auth}", auth=auth, at="hub")
        client = device.client()
        client.connect()
        client.send_message(Message(auth))
        client.shutdown()
    assert sorted(one["body"] for one in birthmark_cloud.messages(at_least=2)) == ["key", "x509"]


def test_the_services_sdks_reach_it(birthmark_cloud, azure_device):
    birthmark_cloud.azure_device("listed", auth="key", at="hub")
    assert birthmark_cloud.registry().get_device("listed").device_id == "listed"
    found = birthmark_cloud.provisioning().get_individual_enrollment(azure_device.name)
    assert found.registration_id == azure_device.name


def test_more_messages_than_a_page_are_all_there(birthmark_cloud):
    device = birthmark_cloud.azure_device(at="hub", auth="key")
    client = device.client()
    client.connect()
    with ThreadPoolExecutor(8) as senders:
        list(senders.map(client.send_message, map(str, range(1100))))
    client.shutdown()
    assert {message["body"] for message in device.messages(at_least=1100)} == set(map(str, range(1100)))


@pytest.mark.parametrize("auth", ["x509", "key"])
def test_a_device_over_amqp_sends_and_receives(birthmark_cloud, auth):
    device = birthmark_cloud.azure_device("pump-1", at="hub", auth=auth, transport="amqp")
    client = device.client()
    client.connect()
    client.send_message("hello", {"site": "north"})
    (message,) = device.messages(at_least=1)
    assert (message["body"], message["properties"]) == ("hello", {"site": "north"})

    assert client.patch_twin_reported_properties({"on": True}) == 2
    assert client.get_twin()["reported"]["on"] is True
    client.watch_twin()
    birthmark_cloud.birthmark("hub", "twin", "pump-1", "--desired", '{"interval": 5}')
    assert client.receive_twin_desired_properties_patch()["interval"] == 5

    birthmark_cloud.birthmark("hub", "c2d", "pump-1", "open", "--feedback", "full")
    client.abandon(client.receive_message())
    again = client.receive_message()
    assert (again.data, again.delivery_count) == (b"open", 2)
    client.complete(again)
    client.shutdown()


def test_a_device_over_amqp_answers_methods(birthmark_cloud):
    device = birthmark_cloud.azure_device("pump-2", at="hub", auth="key", transport="amqp")
    client = device.client()
    client.connect()
    with ThreadPoolExecutor(1) as others:
        with pytest.raises(AmqpDeviceError):
            client.receive_method_request(timeout_s=0.1)
        calling = others.submit(birthmark_cloud.birthmark, "hub", "method", "pump-2", "reboot", '{"in": 3}')
        request = client.receive_method_request()
        assert (request.name, request.payload) == ("reboot", {"in": 3})
        client.send_method_response(request, 200, "done")
        assert "done" in calling.result()
    client.shutdown()


def test_a_device_over_amqp_connects_again_after_a_cut_line(birthmark_cloud, cut_line):
    device = birthmark_cloud.azure_device("pump-4", at="hub", transport="amqp")
    client = device.client()
    with pytest.raises(AmqpDeviceError):
        client.send_message("not connected yet")
    client.connect()
    client.send_message("before")
    cut_line.cut()
    with pytest.raises(AmqpDeviceError):
        client.send_message("lost")
    cut_line.restore()
    client.connect()
    client.send_message("after")
    client.shutdown()
    assert [row["body"] for row in device.messages(at_least=2)] == ["before", "after"]


@pytest.mark.parametrize("auth", ["x509", "key"])
def test_a_revoked_device_over_amqp_is_refused(birthmark_cloud, auth):
    device = birthmark_cloud.azure_device("pump-3", at="hub", auth=auth, transport="amqp")
    birthmark_cloud.revoke(device)
    with pytest.raises(AmqpDeviceError) as refused:
        device.client().connect()
    assert refused.value.condition == "amqp:unauthorized-access"
    assert device.why()["code"] == "iothub.device_disabled"
