"""Run the container image as docs/howto/install.md says it, and send a message with Azure's unmodified SDK.

python tools/check_container.py IMAGE

BIRTHMARK_PODMAN is the command of the engine, with the options that this machine needs; `podman` without. Run by a user
who is not root it is rootless.
"""

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ENGINE = shlex.split(os.environ.get("BIRTHMARK_PODMAN", "podman"))
NAME, ADDRESS = f"birthmark-check-{os.getpid()}", "127.0.0.27"
CLOSED = ["--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges"]
SEND = """
import sys
from azure.iot.device import IoTHubDeviceClient
client = IoTHubDeviceClient.create_from_connection_string(sys.argv[1], server_verification_cert=sys.argv[2])
client.connect()
client.send_message("hello")
client.shutdown()
"""


def engine(*words: str) -> str:
    """Run the engine, and return what it printed."""
    done = subprocess.run([*ENGINE, *words], capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        sys.exit(f"{shlex.join([*ENGINE, *words])}\n{done.stdout}{done.stderr}")
    return done.stdout


def inside(*words: str) -> str:
    """Run a command in the container."""
    return engine("exec", NAME, *words)


def check(image: str) -> None:
    """Start it, and look: who it is, what it may, whether it is well, and whether a message arrives."""
    began = time.monotonic()
    ports = [word for port in (8883, 8443) for word in ("--publish", f"{ADDRESS}:{port}:{port}")]
    limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
    volume = ["--volume", f"{NAME}:/data", "--env", f"BIRTHMARK_HOST={ADDRESS}"]
    engine("run", "--detach", "--name", NAME, *CLOSED, *limits, *ports, *volume, image)
    while "Ready." not in engine("logs", NAME):
        if time.monotonic() - began > 60:  # noqa: PLR2004 - a minute
            sys.exit("It is not ready within a minute.")
        time.sleep(0.2)
    print(f"ready in {time.monotonic() - began:.1f} s")
    status = inside("cat", "/proc/self/status")
    may = {line.split()[1] for line in status.splitlines() if line.startswith(("CapEff", "CapBnd", "CapPrm"))}
    assert may == {"0" * 16}, may
    assert (inside("id", "-u"), inside("id", "-gn")) == ("10001\n", "birthmark\n")
    assert inside("find", "/usr", "-xdev", "-type", "f", "-perm", "/6000") == ""
    refused = subprocess.run([*ENGINE, "exec", NAME, "touch", "/x"], capture_output=True, text=True, check=False)
    assert "Read-only file system" in refused.stderr, refused.stderr
    print("no capability, not root, nothing to write but /data")
    engine("healthcheck", "run", NAME)
    print("healthy")
    inside("birthmark", "hub", "device", "create", "pump-1")
    key = json.loads(inside("birthmark", "hub", "device", "key", "pump-1", "--json"))
    with tempfile.TemporaryDirectory() as directory:
        trust = Path(directory) / "trust.pem"
        trust.write_text(inside("cat", "/data/trust.pem"))
        words = [sys.executable, "-c", SEND, key["primary_connection_string"], trust.read_text()]
        subprocess.run(words, check=True, timeout=60)
    (message,) = [json.loads(line) for line in inside("birthmark", "hub", "messages", "--json").splitlines()]
    assert message["body"] == "hello", message
    print(f"a message of azure-iot-device is here, {time.monotonic() - began:.1f} s after the start")


def main() -> None:
    try:
        check(sys.argv[1])
    finally:
        subprocess.run([*ENGINE, "rm", "--force", "--time", "10", NAME], capture_output=True, check=False)
        subprocess.run([*ENGINE, "volume", "rm", NAME], capture_output=True, check=False)


if __name__ == "__main__":
    main()
