"""The agent of a device that belongs to an AWS account: it comes up, stays, and renews."""

from pathlib import Path
from typing import Any

import pytest

from support.agent.device import until
from support.aws.agent import AwsAgentOnDevice
from support.server.servers import RunningServer

pytestmark = pytest.mark.system


def test_it_stays_connected_and_renews_itself_as_the_same_thing(
    server: RunningServer, iot: Any, tmp_path: Path
) -> None:
    device = AwsAgentOnDevice(server, tmp_path, "agent-1").belong(iot)
    first = device.row("apply")
    assert (first["hub"], first["device_id"]) == (server.endpoints["aws"]["data_endpoint"], "agent-1")
    running = device.start()
    try:
        assert until(running, "connected")["thumbprint"] == first["thumbprint"]
        forced = device.row("renew")
        assert until(running, "renewed")["thumbprint"] == forced["thumbprint"] != first["thumbprint"]
        device.row("stop")
        assert running.wait(10) == 0
    finally:
        running.kill()
        running.wait()
        assert running.stdout is not None
        running.stdout.close()
    principals = [one.rpartition("/")[2] for one in iot.list_thing_principals(thingName="agent-1")["principals"]]
    assert sorted(principals) == sorted([first["thumbprint"], forced["thumbprint"]])


def test_a_certificate_that_the_account_does_not_know_is_refused_and_stays(
    server: RunningServer, iot: Any, tmp_path: Path
) -> None:
    device = AwsAgentOnDevice(server, tmp_path, "agent-2").belong(iot)
    known = device.row("apply")
    made = iot.list_thing_principals(thingName="agent-2")["principals"][0].rpartition("/")[2]
    iot.update_certificate(certificateId=made, newStatus="INACTIVE")
    assert device.attempt("renew").returncode != 0
    iot.update_certificate(certificateId=made, newStatus="ACTIVE")
    assert device.row("apply")["thumbprint"] == known["thumbprint"]
