"""Clients that exceed a limit of the server; its configuration file gives them the room that the fix names."""

from collections.abc import Mapping

from fixes.applied import configured
from fixes.scenario import Scenario, typed
from fixes.scene import Scene
from fixes.session_scenarios import allowed

CONNECT = 'openssl s_client -quiet -connect "$PROVISIONING_HOST:8443" 2> /dev/null'
GET = 'curl -sSf --cacert "$SSL_CERT_FILE" "https://$PROVISIONING_HOST:8443/.well-known/est/cacerts" -o cacerts.b64'
SLOW = (
    "(printf 'GET /.well-known/est/cacerts HTTP/1.1\\r\\n'; sleep 3; "
    "printf 'Host: %s\\r\\nConnection: close\\r\\n\\r\\n' \"$PROVISIONING_HOST\"; sleep 1) "
    f"| {CONNECT} | grep -q '^HTTP/1.1 200'"
)
POST = (
    'head -c 3000 /dev/zero | curl -sS --cacert "$SSL_CERT_FILE" --data-binary @- -o answer '
    "\"https://$PROVISIONING_HOST:8443/.well-known/est/simpleenroll\"; grep -q 'content type must be' answer"
)
# The kernel's own buffers hold some megabytes of it.
UNREAD = """
import os, socket, ssl, sys
sys.path[:0] = [os.environ["TESTS"], os.environ["TESTS"] + "/system"]
from fixes.desk import a_connect, a_publish, a_subscribe
known = os.environ
context = ssl.create_default_context(cafile=known["SSL_CERT_FILE"])
context.load_cert_chain(known["X509_CERT_FILE"], known["X509_KEY_FILE"])
def connected(name):
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.settimeout(10)
    raw.connect((known["PROVISIONING_HOST"], 8883))
    sock = context.wrap_socket(raw, server_hostname=known["PROVISIONING_HOST"])
    sock.sendall(a_connect(name))
    assert sock.recv(4)[3:] == bytes(1), name
    return sock
reader, writer = connected("fix-unread"), connected("fix-writer")
reader.sendall(a_subscribe("fix/unread"))
assert reader.recv(5)[0] == 0x90
for number in range(110):
    writer.sendall(a_publish("fix/unread", bytes(100_000), qos=0))
writer.sendall(a_publish("fix/other"))
assert writer.recv(4)[0] == 0x40
left = 110 * 100_000
while left > 0:
    left -= len(reader.recv(1 << 20)) or sys.exit("closed")
"""


def unread(scene: Scene) -> None:
    allowed(scene)
    (scene.directory / "unread.py").write_text(UNREAD)


KNOWN = typed('eval "$(birthmark env)"')

LIMITS: Mapping[str, Scenario] = {
    "net.slow_reader": Scenario(
        "python3 unread.py", unread, apply=configured(), config="limits.max_write_buffer_bytes = 6000000\n"
    ),
    "net.too_many_bytes": Scenario(
        POST, KNOWN, apply=configured(), config="limits.max_unauthenticated_bytes_per_peer = 2000\n"
    ),
    "net.too_many_connections": Scenario(
        f"(sleep 4 | {CONNECT} > /dev/null &); sleep 1; {GET}",
        KNOWN,
        apply=configured(),
        config="limits.max_connections_per_peer = 1\n",
    ),
    "net.too_slow": Scenario(SLOW, KNOWN, apply=configured(), config="limits.header_s = 2\n"),
}
