"""Clients that exceed a limit of the server; its configuration file gives them the room that the fix names."""

from collections.abc import Mapping

from fixes.applied import configured
from fixes.scenario import Scenario, typed

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
KNOWN = typed('eval "$(birthmark env)"')

LIMITS: Mapping[str, Scenario] = {
    "net.too_many_bytes": Scenario(
        POST, KNOWN, apply=configured(), config="limits.max_stranger_bytes_per_peer = 2000\n"
    ),
    "net.too_many_connections": Scenario(
        f"(sleep 4 | {CONNECT} > /dev/null &); sleep 1; {GET}",
        KNOWN,
        apply=configured(),
        config="limits.max_connections_per_peer = 1\n",
    ),
    "net.too_slow": Scenario(SLOW, KNOWN, apply=configured(), config="limits.header_s = 2\n"),
}
