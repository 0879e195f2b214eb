"""A refusal over WebSocket reaches the unmodified awscrt at once: it reports only when the connection has ended."""

import subprocess
import sys

import pytest

from support.server.servers import RunningServer, clean_environment

pytestmark = pytest.mark.system

SCRIPT = """
import sys, time
from awscrt import auth, exceptions, http, io, mqtt
options = io.TlsContextOptions()
options.override_default_trust_store_from_path(None, sys.argv[2])
client = mqtt.Client(io.ClientBootstrap.get_or_create_static_default(), io.ClientTlsContext(options))
connection = mqtt.Connection(
    client,
    host_name=sys.argv[1],
    port=8443,
    client_id=sys.argv[3],
    username=sys.argv[4] or None,
    use_websockets=True,
    websocket_handshake_transform=lambda transform: transform.set_done(),
)
started = time.monotonic()
try:
    connection.connect().result(30)
except exceptions.AwsCrtError as error:
    print(error.name, time.monotonic() - started)
"""


@pytest.mark.parametrize("username", ["", "0neX/registrations/refused/api-version=2019-03-31"])
def test_a_refusal_over_websocket_is_known_within_a_second(server: RunningServer, username: str) -> None:
    arguments = [server.address, server.endpoints["trust_bundle"], f"refused-{len(username)}", username]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=clean_environment(),
    )
    name, seconds = done.stdout.split()
    assert name.startswith("AWS_ERROR"), done.stderr
    assert float(seconds) <= 1
