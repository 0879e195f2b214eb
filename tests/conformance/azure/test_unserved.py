"""Paths of the hub that this one does not serve: its own error, and a row in `why`."""

import json
import ssl
import urllib.error
import urllib.request

import pytest

from support.azure.clients import run_python
from support.server.servers import RunningServer

pytestmark = pytest.mark.system


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PATCH", "/devices/d"),
        ("PATCH", "/devices/d/modules/m"),
        ("POST", "/devices/d/modules/m/files"),
        ("GET", "/devices/d/messages/events"),
        ("PATCH", "/jobs"),
        ("POST", "/configurations"),
        ("POST", "/twins/d"),
    ],
)
def test_a_path_that_is_not_served_says_so_in_the_hubs_own_form_and_is_recorded(
    server: RunningServer, method: str, path: str
) -> None:
    context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
    url = f"https://{server.address}:8443{path}?api-version=2021-04-12"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(url, b"{}", method=method), context=context, timeout=10)
    assert caught.value.code == 501
    body = json.loads(caught.value.read())
    assert body["Message"].startswith("ErrorCode:NotImplemented;")
    assert caught.value.headers["iothub-errorcode"] == "NotImplemented"
    assert server.why(body["ExceptionMessage"].removeprefix("Tracking ID:"))["code"] == "iothub.operation_not_served"


@pytest.mark.parametrize("path", ["/devices/bad%20id!%2F", "/twins/a%2Fb", "/devices/bad%20id!%2F/modules"])
def test_a_name_that_cannot_be_is_told_so_however_it_is_encoded(server: RunningServer, path: str) -> None:
    context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
    url = f"https://{server.address}:8443{path}?api-version=2021-04-12"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url, context=context, timeout=10)
    assert (caught.value.code, caught.value.headers["iothub-errorcode"]) == (400, "ArgumentInvalid")
    caught.value.close()


def test_the_list_of_devices_has_a_path_with_a_slash_too(server: RunningServer) -> None:
    script = """
import os
from azure.iot.hub import IoTHubRegistryManager
manager = IoTHubRegistryManager.from_connection_string(os.environ["IOTHUB_CONNECTION_STRING"])
import requests
from azure.iot.hub.sastoken import SasToken
text = dict(part.split("=", 1) for part in os.environ["IOTHUB_CONNECTION_STRING"].split(";"))
token = str(SasToken(text["HostName"], text["SharedAccessKey"], text["SharedAccessKeyName"]))
answer = requests.get(f"https://{text['HostName']}/devices/", headers={"Authorization": token}, timeout=10)
print(answer.status_code, type(answer.json()).__name__)
"""
    done = run_python(script, server.cloud.environment())
    assert done.stdout.strip() == "200 list", done.stderr + done.stdout
