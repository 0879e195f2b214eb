"""The peers, each with TLS and client certificates as our server has them, one process or worker each."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from rig import Rig, wait_for

_OWN = Path(__file__).parent / ".venv" / "bin"  # amqtt and moto want other versions than we do
_GO = Path(__file__).parent.parent / "tests/conformance/languages/go"


class PeerMissingError(Exception):
    """A peer cannot be built on this machine."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Where a peer listens, and the process that does its work."""

    address: str
    port: int
    pid: int


def nginx(rig: Rig) -> Peer:
    """One worker that verifies client certificates."""
    where, port = rig.directory, 8444
    chain, key = rig.server_pem()
    temporary = " ".join(f"{name}_temp_path {where};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (where / "nginx.conf").write_text(
        f"""
daemon off; worker_processes 1; pid {where}/nginx.pid; error_log {where}/nginx.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; {temporary}
  server {{
    listen {rig.address}:{port} ssl backlog=4096;
    ssl_certificate {chain}; ssl_certificate_key {key};
    ssl_client_certificate {rig.ca_file}; ssl_verify_client on; ssl_verify_depth 3;
    ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache off; ssl_session_tickets off;
    keepalive_timeout 0; location / {{ return 404; }}
  }}
}}
"""
    )
    process = _start(rig, "nginx", "-p", str(where), "-c", str(where / "nginx.conf"))
    wait_for(rig.address, port, "nginx")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return Peer(rig.address, port, int(children[0]))


def haproxy(rig: Rig) -> Peer:
    """One thread that verifies client certificates and answers by itself."""
    where, port = rig.directory, 8447
    chain, key = rig.server_pem()
    both = where / "haproxy.pem"
    both.write_bytes(Path(chain).read_bytes() + Path(key).read_bytes())
    both.chmod(0o600)
    (where / "haproxy.cfg").write_text(
        f"""
global
  nbthread 1
  maxconn 4096
  tune.ssl.cachesize 0
defaults
  mode http
  timeout connect 10s
  timeout client 10s
  timeout server 10s
frontend tls
  bind {rig.address}:{port} ssl crt {both} ca-file {rig.ca_file} verify required no-tls-tickets
  http-request return status 404
"""
    )
    process = _start(rig, "haproxy", "-db", "-f", str(where / "haproxy.cfg"))
    wait_for(rig.address, port, "haproxy")
    return Peer(rig.address, port, process.pid)


def caddy(rig: Rig) -> Peer:
    """One processor for all of it."""
    where, port = rig.directory, 8448
    chain, key = rig.server_pem()
    (where / "Caddyfile").write_text(
        f"""
{{
  admin off
  auto_https off
  default_sni {rig.address}
}}
https://{rig.address}:{port} {{
  bind {rig.address}
  tls {chain} {key} {{
    client_auth {{
      mode require_and_verify
      trusted_ca_cert_file {rig.ca_file}
    }}
  }}
  respond 404
}}
"""
    )
    run = ("env", f"HOME={where}", "GOMAXPROCS=1", "caddy", "run", "--adapter", "caddyfile")
    process = _start(rig, *run, "--config", str(where / "Caddyfile"))
    wait_for(rig.address, port, "caddy")
    return Peer(rig.address, port, process.pid)


def mosquitto(rig: Rig, port: int = 8884) -> Peer:
    """Keeps nothing on disk."""
    where = rig.directory
    chain, key = rig.server_pem()
    (where / "mosquitto.conf").write_text(
        f"""
listener {port} {rig.address}
certfile {chain}
keyfile {key}
cafile {rig.ca_file}
require_certificate true
use_identity_as_username true
allow_anonymous false
persistence false
log_dest none
set_tcp_nodelay true
max_queued_messages 0
max_inflight_messages 100
"""
    )
    process = _start(rig, "mosquitto", "-c", str(where / "mosquitto.conf"))
    wait_for(rig.address, port, "mosquitto")
    return Peer(rig.address, port, process.pid)


def amqtt(rig: Rig) -> Peer:
    """The broker in Python, with its default plugins for anonymous clients."""
    where, port = rig.directory, 8885
    chain, key = rig.server_pem()
    (where / "amqtt.yaml").write_text(
        f"""
listeners:
  default:
    type: tcp
    bind: {rig.address}:{port}
    ssl: on
    cafile: {rig.ca_file}
    certfile: {chain}
    keyfile: {key}
    max_connections: 4096
plugins:
  amqtt.plugins.authentication.AnonymousAuthPlugin:
    allow_anonymous: true
"""
    )
    process = _start(rig, str(_OWN / "amqtt"), "-c", str(where / "amqtt.yaml"))
    wait_for(rig.address, port, "amqtt")
    return Peer(rig.address, port, process.pid)


def nats(rig: Rig) -> Peer:
    """NATS with MQTT, which syncs each message to disk before it acknowledges it."""
    where, port = rig.directory, 8889
    chain, key = rig.server_pem()
    (where / "nats.conf").write_text(
        f"""
server_name: bench
listen: "{rig.address}:4222"
jetstream {{ store_dir: "{where}/nats", sync_interval: always }}
mqtt {{
  listen: "{rig.address}:{port}"
  tls {{ cert_file: "{chain}", key_file: "{key}", ca_file: "{rig.ca_file}", verify: true }}
}}
"""
    )
    process = _start(rig, str(Path(sys.executable).with_name("nats-server")), "-c", str(where / "nats.conf"))
    wait_for(rig.address, port, "nats-server")
    return Peer(rig.address, port, process.pid)


def moto(rig: Rig) -> Peer:
    """The AWS mock's own server, without TLS: it has none."""
    port = 8886
    process = _start(rig, str(_OWN / "moto_server"), "-H", rig.address, "-p", str(port))
    wait_for(rig.address, port, "moto")
    return Peer(rig.address, port, process.pid)


def globalsign(rig: Rig) -> Peer:
    """GlobalSign's EST server with its CA for tests, one processor for all of it; it stores nothing."""
    where, port = rig.directory, 8445
    program = where / "estserver"
    if shutil.which("go") is None:
        raise PeerMissingError("GlobalSign's EST server needs Go 1.25 or newer")
    build = ["go", "build", "-C", str(_GO), "-o", str(program), "github.com/globalsign/est/cmd/estserver"]
    subprocess.run(build, check=True)
    chain, key = rig.server_pem()
    ca_key = where / "ca.key"
    ca_key.write_text(rig.ca.key_pem)
    tls = {"certificates": str(chain), "private_key": str(key), "client_cas": [str(rig.ca_file)]}
    config = {
        "mock_ca": {"certificates": str(rig.ca_file), "private_key": str(ca_key)},
        "tls": {"listen_address": f"{rig.address}:{port}", **tls},
        "allowed_hosts": [rig.address],
        "timeout": 30,
        "log_file": str(where / "estserver.log"),
    }
    (where / "estserver.json").write_text(json.dumps(config))
    process = _start(rig, "env", "GOMAXPROCS=1", str(program), "-config", str(where / "estserver.json"))
    wait_for(rig.address, port, "estserver")
    return Peer(rig.address, port, process.pid)


def _start(rig: Rig, *command: str) -> subprocess.Popen[bytes]:
    with (rig.directory / f"{Path(command[0]).name}.out").open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)

    def end() -> None:
        process.terminate()
        process.wait(20)

    rig.ends.callback(end)
    return process
