"""Trust&GO to Azure DPS: a shipment by the supplier's signed list."""

import json

from birthmark.demo.stage import Proof, Stage, app_path
from birthmark.pki.certificates import parse_pem

TITLE = "Trust&GO: the supplier's signed list → Azure DPS"
ABOUT = "Fifty chips verified and put on record before the first of them is switched on."
_CHIPS = 50


def play(stage: Stage) -> None:
    """Run the journey."""
    stage.say(
        "A reel of ATECC608 Trust&GO arrives, and a manifest by mail. Here: a software chip, and 49 more on the list."
    )
    stage.source("birthmark", "element", "simulate", "chip", "--profile", "atecc608")
    stage.birthmark(
        "manifest", "create", "--out", "shipment", "--count", str(_CHIPS), "--element-ca", "chip/maker-ca.pem"
    )
    trust = ("--signer", "shipment/signer.pem", "--root", "shipment/root.pem")
    listed = "shipment/manifest.json"

    stage.say("Verify every entry: signature, signer, header, duplicates, certificate name, key and chain.")
    verified = stage.rows("manifest", "verify", listed, *trust)
    stage.expect(len(verified), _CHIPS, "entries verified")

    stage.say("A list that was tampered with is refused, entry by entry.")
    entries = json.loads(stage.path(listed).read_text())
    entries[1]["header"]["uniqueId"] = "0123000000000000" + "01"
    changed = bytearray(entries[2]["payload"].encode())
    changed[200] = ord("A") if changed[200] != ord("A") else ord("B")
    entries[2]["payload"] = changed.decode()
    stage.path("tampered.json").write_text(json.dumps(entries))
    done = stage.birthmark("manifest", "verify", "tampered.json", *trust, "--json", may_fail=True)
    found = [row["error"] for line in done.stdout.splitlines() if "error" in (row := json.loads(line))]
    stage.expect(found, ["manifest.unique_id_changed", "manifest.signature_broken"], "refused")

    stage.say("A certificate file for each chip.")
    stage.birthmark("manifest", "extract", listed, *trust, "--out", "certificates")
    stage.expect(len(list(stage.path("certificates").glob("*.pem"))), _CHIPS, "certificate files")

    stage.say("Start the local cloud and put the shipment on record, twice: the second run changes nothing.")
    stage.serve()
    stage.expect(_outcomes(stage, listed, trust), {"created": _CHIPS}, "first run")
    stage.expect(_outcomes(stage, listed, trust), {"unchanged": _CHIPS}, "second run")

    stage.say("One device is switched on: the key in its chip, Microsoft's SDK.")
    stage.birthmark("element", "cert", "device", "--out", "device.pem")
    certificate = parse_pem(stage.path("device.pem").read_bytes())
    name = certificate.subject_cn or ""
    stage.expect(_state(stage, name), "unassigned", "state before")
    stage.path("device.key").write_text("pkcs11:token=00ABC;object=device;type=private\n")
    identity = {"DPS_X509_REGISTRATION_ID": name, "X509_CERT_FILE": "device.pem", "X509_KEY_FILE": "device.key"}
    done = stage.birthmark("element", "exec", "--", "python", str(app_path("azure_device.py")), environment=identity)
    for line in done.stdout.splitlines():
        stage.note(line)
    stage.expect(_state(stage, name), "assigned", "state after")
    device_id = name
    messages = stage.rows("hub", "messages", device_id)
    host = stage.endpoints["iothub"]["host"]
    where = "inside the token, not extractable"
    stage.prove(Proof(device_id, where, certificate.thumbprint.hex(), f"hub {host}", f"{len(messages)} received"))
    stage.prove(Proof(f"{_CHIPS - 1} more", "in their chips", verified[-1]["thumbprint"], "on record", "unassigned"))


def _outcomes(stage: Stage, listed: str, trust: tuple[str, ...]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in stage.rows("enroll", "manifest", listed, *trust):
        counts[row["outcome"]] = counts.get(row["outcome"], 0) + 1
    return counts


def _state(stage: Stage, name: str) -> str:
    return next(str(row["state"]) for row in stage.rows("enroll", "list") if row["name"] == name.lower())
