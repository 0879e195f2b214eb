"""The unmodified Node service SDK (azure-iothub): listing devices, twins, methods."""

import shutil
import subprocess
from pathlib import Path

import pytest

from servers import RunningServer

pytestmark = pytest.mark.system
NODE = Path(__file__).parents[2] / "node"


def run_node(script: str, server: RunningServer) -> subprocess.CompletedProcess[str]:
    node = shutil.which("node") or "node"
    head = "const {Client, Registry} = require('azure-iothub');\n"
    head += "const registry = Registry.fromConnectionString(process.env.IOTHUB_CONNECTION_STRING);\n"
    return subprocess.run(
        [node, "-e", head + script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=NODE,
        env=dict(server.environment),
    )


def test_registry_list_gives_every_device(server: RunningServer) -> None:
    script = """
(async () => {
  await registry.create({deviceId: "node-listed", status: "enabled"});
  const {responseBody} = await registry.list();
  console.log(responseBody.map((device) => device.deviceId).includes("node-listed"));
})();
"""
    done = run_node(script, server)
    assert done.stdout.strip() == "true", done.stderr


def test_a_twin_is_read_and_changed_and_a_method_of_an_absent_device_is_refused(server: RunningServer) -> None:
    script = """
(async () => {
  await registry.create({deviceId: "node-twin", status: "enabled"});
  const twin = (await registry.getTwin("node-twin")).responseBody;
  await twin.update({tags: {site: "a"}, properties: {desired: {interval: 5}}});
  const changed = (await registry.getTwin("node-twin")).responseBody;
  console.log(JSON.stringify([changed.tags, changed.properties.desired.interval, changed.properties.desired.$version]));
  try {
    await registry.updateTwin("node-twin", {tags: {site: "b"}}, "AAAAAAAAAAE=");
  } catch (error) {
    console.log(error.constructor.name, error.response.statusCode);
  }
  const service = Client.fromConnectionString(process.env.IOTHUB_CONNECTION_STRING);
  try {
    await service.invokeDeviceMethod("node-twin", {methodName: "away", responseTimeoutInSeconds: 5});
  } catch (error) {
    console.log(error.constructor.name, error.response.statusCode);
  }
})();
"""
    done = run_node(script, server)
    assert done.stdout.splitlines() == [
        '[{"site":"a"},5,2]',
        "InvalidEtagError 412",
        "Error 404",
    ], done.stdout + done.stderr
