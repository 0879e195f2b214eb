"""Queries as the vendors' unmodified service SDKs ask them: hubs in Python and Node, enrollments in both."""

import shutil
import subprocess
from pathlib import Path

import pytest

from azure_clients import run_python
from servers import RunningServer

pytestmark = pytest.mark.system
NODE = Path(__file__).parents[2] / "node"

HUB = """
import os
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import QuerySpecification, Twin, TwinProperties
manager = IoTHubRegistryManager.from_connection_string(os.environ["IOTHUB_CONNECTION_STRING"])

def make(name, tags, desired=None):
    manager.create_device_with_sas(name, "", "", "enabled")
    manager.update_twin(name, Twin(tags=tags, properties=TwinProperties(desired=desired or {})), "*")

def ask(text, marker=None, size=None):
    return manager.query_iot_hub(QuerySpecification(query=text), marker, size)
"""


def in_python(server: RunningServer, body: str) -> list[str]:
    done = run_python(HUB + body, dict(server.environment))
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def in_node(server: RunningServer, script: str) -> list[str]:
    node = shutil.which("node") or "node"
    done = subprocess.run(
        [node, "-e", f"(async () => {{{script}}})();"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=NODE,
        env=dict(server.environment),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_python_finds_twins_by_a_tag_and_goes_on_page_by_page(server: RunningServer) -> None:
    assert in_python(
        server,
        """
for number in range(5):
    make(f"python-query-{number}", {"site": "python-north" if number % 2 == 0 else "python-south"}, {"n": number})
text = "SELECT * FROM devices WHERE tags.site = 'python-north'"
first = ask(text, size=2)
print([twin.device_id for twin in first.items], type(first.items[0]).__name__)
second = ask(text, first.continuation_token, 2)
print([twin.device_id for twin in second.items], second.continuation_token)
print(second.items[0].tags, second.items[0].properties.desired["n"], second.items[0].connection_state)
""",
    ) == [
        "['python-query-0', 'python-query-2'] Twin",
        "['python-query-4'] None",
        "{'site': 'python-north'} 4 Disconnected",
    ]
