"""Full mTLS handshake and DPS registration over MQTT, committed, beside nginx's mTLS handshake in the same run.

    scripts/bench [--operations N] [--runs N]

What is measured is the server's CPU time per operation (all threads, from the kernel's scheduler statistics), server
and clients pinned to different cores, the minimum of several interleaved runs; the machine may be noisy, so wall time
is not looked at. Every operation uses a fresh TLS 1.3 connection with a P-256 client certificate; every registration
is of a device that never registered before, by an enrollment group, and is on disk when it is answered.

Writes results/registration.json and results/registration.svg and prints a table.
"""

import argparse
import json
import os
import platform
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from birthmark.mqtt.engine import Engine, Role  # noqa: E402
from birthmark.mqtt.packets import ConnAck, Connect, Disconnect, Publish, SubAck  # noqa: E402
from birthmark.pki import profiles  # noqa: E402
from pki_builders import Holder, a_ca, a_device  # noqa: E402
from servers import RunningServer, free_address  # noqa: E402

NOW = datetime.now(UTC)
THREADS = 8
SERVER_CORE, CLIENT_CORE = 0, (os.cpu_count() or 1) - 1
# The direction, shown and not gated.
DIRECTION = {"handshake": 0.85, "registration": 1.4}


@dataclass
class Device:
    name: str
    context: ssl.SSLContext


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its threads, in seconds."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def pin(pid: int, core: int) -> None:
    """Keep a process and its threads on one core."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


def devices(directory: Path, ca: Holder, count: int, trust: Path, tag: str) -> list[Device]:
    """Make devices with certificates of `ca`."""
    made = []
    for number in range(count):
        name = f"bench-{tag}-{number}"
        holder = a_device(ca, name, now=NOW, lifetime=timedelta(days=30))
        pem = directory / "device.pem"
        pem.write_text(holder.certificate.pem() + holder.key_pem)
        context = ssl.create_default_context(cafile=str(trust))
        context.check_hostname = False
        context.load_cert_chain(pem)
        made.append(Device(name, context))
    return made


def handshake(address: str, port: int, device: Device) -> None:
    """Connect, finish the handshake on both sides (a ping of TLS: the server's answer to our close), close."""
    raw = socket.create_connection((address, port), 20)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with device.context.wrap_socket(raw) as sock:
        raw_again = sock.unwrap()  # waits for the server's close_notify, so its side of the handshake is done too
        raw_again.close()


def register(address: str, scope: str, device: Device) -> None:
    """Connect to DPS over MQTT, register, and read `assigned`."""
    raw = socket.create_connection((address, 8883), 20)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    engine = Engine(Role.CLIENT)
    with device.context.wrap_socket(raw) as sock:

        def expect(kind: type) -> object:
            while True:
                sock.sendall(engine.data_to_send())
                while (packet := engine.next_event()) is not None:
                    if isinstance(packet, kind):
                        return packet
                engine.receive_data(sock.recv(65536), 0.0)

        username = f"{scope}/registrations/{device.name}/api-version=2019-03-31"
        engine.send(Connect(device.name, clean_start=False, username=username))
        answer = expect(ConnAck)
        assert answer.code == 0, answer
        engine.subscribe([("$dps/registrations/res/#", 1)])
        expect(SubAck)
        body = json.dumps({"registrationId": device.name}).encode()
        engine.publish("$dps/registrations/PUT/iotdps-register/?$rid=1", body, 1)
        reply = expect(Publish)
        assert "/res/200/" in reply.topic, reply
        engine.send(Disconnect())
        sock.sendall(engine.data_to_send())


def each(work, items: list[Device]) -> None:
    """Do `work` with every device, a few at a time."""
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, items))


def start_nginx(directory: Path, address: str, ca_file: Path, server: RunningServer) -> subprocess.Popen:
    """Start one nginx worker that verifies client certificates, with our server's own certificate type."""
    ca = a_ca("bench server CA", now=NOW)
    leaf = a_device(ca, "nginx", profile=profiles.SERVER, now=NOW)
    (directory / "nginx.pem").write_text(leaf.certificate.pem() + ca.certificate.pem())
    (directory / "nginx.key").write_text(leaf.key_pem)
    (directory / "nginx-ca.pem").write_text(ca.certificate.pem() + Path(server.endpoints["trust_bundle"]).read_text())
    (directory / "nginx.conf").write_text(
        f"""
daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/nginx.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};
  uwsgi_temp_path {directory}; scgi_temp_path {directory};
  server {{
    listen {address}:8444 ssl backlog=4096;
    ssl_certificate {directory}/nginx.pem; ssl_certificate_key {directory}/nginx.key;
    ssl_client_certificate {ca_file}; ssl_verify_client on; ssl_verify_depth 3;
    ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache off; ssl_session_tickets off;
    keepalive_timeout 0; location / {{ return 404; }}
  }}
}}
"""
    )
    process = subprocess.Popen(["nginx", "-p", str(directory), "-c", str(directory / "nginx.conf")])
    for _ in range(100):
        with socket.socket() as sock:
            if sock.connect_ex((address, 8444)) == 0:
                return process
        time.sleep(0.05)
    raise SystemExit("nginx did not start")


def worker_of(process: subprocess.Popen) -> int:
    """Return nginx's one worker."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(children[0])


def measure(pid: int, work, items: list[Device]) -> float:
    """Return the server's CPU time per operation in microseconds."""
    pin(pid, SERVER_CORE)
    before = cpu_seconds(pid)
    each(work, items)
    return (cpu_seconds(pid) - before) / len(items) * 1e6


def plot(results: dict, target: Path) -> None:
    """Draw the bars."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    names = ["nginx mTLS handshake", "birthmark mTLS handshake", "birthmark DPS registration"]
    values = [results["us_per_operation"][key] for key in ("nginx_handshake", "handshake", "registration")]
    figure, axes = plt.subplots(figsize=(7, 2.4), layout="constrained")
    bars = axes.barh(names, values, color=["#9aa5b1", "#2f6f4f", "#3f8f6a"])
    axes.bar_label(bars, fmt="%.0f µs", padding=4)
    axes.set_xlim(0, max(values) * 1.2)
    axes.set_xlabel("server CPU per operation (minimum of the runs)")
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(target, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", type=int, default=400, help="operations per run")
    parser.add_argument("--runs", type=int, default=5, help="interleaved runs; the minimum counts")
    arguments = parser.parse_args()

    directory = Path(tempfile.mkdtemp(prefix="birthmark-bench-"))
    directory.chmod(0o755)
    address = free_address()
    ca = a_ca("bench CA", now=NOW)
    ca_file = directory / "ca.pem"
    ca_file.write_text(ca.certificate.pem())
    server = RunningServer(directory / "data", address).start()
    nginx = start_nginx(directory, address, ca_file, server)
    samples: dict[str, list[float]] = {"nginx_handshake": [], "handshake": [], "registration": []}
    try:
        server.run("dps", "ca", "add", "bench", str(ca_file), "--verified")
        server.run("enroll", "group", "bench", "--ca-name", "bench")
        scope = server.endpoints["dps"]["id_scope"]
        os.sched_setaffinity(0, {CLIENT_CORE})
        assert server.process is not None
        for run in range(arguments.runs):
            many = devices(directory, ca, arguments.operations, directory / "nginx-ca.pem", f"run{run}")
            samples["nginx_handshake"].append(measure(worker_of(nginx), lambda d: handshake(address, 8444, d), many))
            samples["handshake"].append(measure(server.process.pid, lambda d: handshake(address, 8443, d), many))
            samples["registration"].append(measure(server.process.pid, lambda d: register(address, scope, d), many))
            print(f"run {run + 1}: " + ", ".join(f"{k} {v[-1]:.0f} µs" for k, v in samples.items()), file=sys.stderr)
        assert sum(1 for row in server.rows("hub", "devices") if row["device"].startswith("bench-")) == (
            arguments.runs * arguments.operations
        ), "a rate without a count is not a result"
    finally:
        nginx.terminate()
        nginx.wait()
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)

    best = {name: min(values) for name, values in samples.items()}
    ratios = {name: best[name] / best["nginx_handshake"] for name in ("handshake", "registration")}
    results = {
        "what": "server CPU per operation, minimum of the runs; TLS 1.3, P-256, client certificate",
        "python": platform.python_version(),
        "operations_per_run": arguments.operations,
        "runs": arguments.runs,
        "us_per_operation": {name: round(value, 1) for name, value in best.items()},
        "samples_us": {name: [round(v, 1) for v in values] for name, values in samples.items()},
        "ratio_to_nginx": {name: round(value, 3) for name, value in ratios.items()},
        "direction": DIRECTION,
    }
    target = HERE / "results"
    target.mkdir(exist_ok=True)
    (target / "registration.json").write_text(json.dumps(results, indent=2) + "\n")
    plot(results, target / "registration.svg")
    print(f"{'':28} {'CPU µs':>8} {'to nginx':>9} {'direction':>10}")
    print(f"{'nginx mTLS handshake':28} {best['nginx_handshake']:8.0f} {1:9.2f}")
    for name, ratio in ratios.items():
        print(f"{'birthmark ' + name:28} {best[name]:8.0f} {ratio:9.2f} {'<= ' + str(DIRECTION[name]):>10}")


if __name__ == "__main__":
    main()
