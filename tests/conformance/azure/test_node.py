"""The unmodified Node service SDK (azure-iothub): listing devices, and what is not served."""

import shutil
import subprocess
from pathlib import Path

import pytest

from servers import RunningServer

pytestmark = pytest.mark.system
NODE = Path(__file__).parents[2] / "node"


def run_node(script: str, server: RunningServer) -> subprocess.CompletedProcess[str]:
    node = shutil.which("node") or "node"
    head = "const {Registry} = require('azure-iothub');\n"
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


def test_a_twin_is_refused_by_the_hubs_own_error(server: RunningServer) -> None:
    script = """
registry.getTwin("node-listed").then(() => console.log("served"), (error) => {
  console.log(error.response.statusCode, JSON.parse(error.responseBody).Message.split(";")[0]);
});
"""
    done = run_node(script, server)
    assert done.stdout.strip() == "501 ErrorCode:NotImplemented", done.stdout + done.stderr
