"""IoT Edge style agent with EST: enrollment with a password, then renewal with the certificate."""

from pathlib import Path

from birthmark.demo.harness import NotProvenError, Stage, read_event

TITLE = "EST → a device that renews its own certificate"
ABOUT = "An aziot-style config.toml. Certificates are valid for seconds here, and for a day by default."
_NAME = "edge-0001"
_LIFETIME_S = 15
_CUT = "awk '/BEGIN CERT/{n++} n==2' | sed -n '/BEGIN CERT/,/END CERT/p' > cert2.pem"


def play(stage: Stage) -> None:
    """Run the scenario."""
    stage.say(f"Start the local cloud. Device certificates are valid for {_LIFETIME_S} seconds, to show a renewal.")
    stage.serve(f"[est]\ndevice_lifetime_s = {_LIFETIME_S}\n")
    host = stage.endpoints["dps"]["host"]

    stage.say("Get the EST server's certificates. The second one is the root, the only trust anchor that you need.")
    line = f"openssl s_client -showcerts -connect {host}:8085 </dev/null 2>/dev/null | {_CUT}"
    stage.run("sh", "-c", line, shown=line)
    stage.birthmark("dps", "ca", "create", "est-root", "cert2.pem", "--verified")
    stage.birthmark("device", "enroll-group", "edge-devices", "--ca-name", "est-root")

    stage.say("Write the device's configuration in the format of IoT Edge.")
    config = stage.path("device/etc/aziot/config.toml")
    config.parent.mkdir(parents=True)
    printed = stage.birthmark("env", "--format", "aziot", "--registration-id", _NAME).stdout
    anchor = stage.path("cert2.pem")
    config.write_text(printed.replace(str(stage.endpoints["trust_bundle"]), str(anchor)))
    root = ("--root", "device")
    stage.birthmark("agent", "check", *root)

    stage.say("apply: the device enrolls over EST and registers with the group. The hub stores its thumbprint.")
    first = stage.row("agent", "apply", *root)
    stage.expect(_thumbprint_at_hub(stage), first["thumbprint"], "thumbprint in the hub")

    stage.say("run: the agent stays connected and renews the certificate before it expires.")
    agent = stage.start("birthmark", "agent", "run", *root, "--telemetry", "1", "--json", log="agent.log")
    connected = read_event(agent, "connected")
    stage.note(f"connected with {str(connected['thumbprint'])[:16]}…")
    with stage.console.status("   waiting for the renewal"):
        renewed = read_event(agent, "renewed")
    stage.note(f"renewed, and reconnected with {str(renewed['thumbprint'])[:16]}…")
    if renewed["thumbprint"] == connected["thumbprint"]:
        raise NotProvenError(expected="a new certificate", found=renewed["thumbprint"])
    stage.expect(_thumbprint_at_hub(stage), renewed["thumbprint"], "thumbprint in the hub")

    stage.say("Stop the agent, remove certificates and keys, and apply again: the device enrolls from the start.")
    stage.birthmark("agent", "stop", *root)
    for path in _files(stage.path("device")):
        stage.note(f"rm {path.relative_to(stage.directory)}")
        path.unlink()
    again = stage.row("agent", "apply", *root)
    if again["thumbprint"] in {first["thumbprint"], renewed["thumbprint"]}:
        raise NotProvenError(expected="a new certificate", found=again["thumbprint"])
    stage.expect(_thumbprint_at_hub(stage), again["thumbprint"], "thumbprint in the hub")

    where = "a key file of mode 0600 (a token with [aziot_keys])"
    stage.prove_at_hub(_NAME, str(again["thumbprint"]), host, where=where)


def _files(device: Path) -> list[Path]:
    """Return the agent's certificate and key files, named as aziot names them."""
    state = device / "var" / "lib" / "aziot"
    return sorted([*state.glob("certd/certs/*"), *state.glob("keyd/keys/*")])


def _thumbprint_at_hub(stage: Stage) -> str:
    return next(str(row["thumbprint"]) for row in stage.rows("hub", "device", "ls") if row["device"] == _NAME)
