"""Trust&GO to Azure DPS: enroll a shipment from the supplier's signed manifest."""

import json
from collections import Counter

from birthmark.demo.harness import DemoProof, Stage
from birthmark.pki.certificates import parse_pem

TITLE = "Trust&GO: the supplier's signed list → Azure DPS"
ABOUT = "Fifty chips are verified and enrolled before the first one is switched on."
_CHIPS = 50


def play(stage: Stage) -> None:
    """Run the scenario."""
    stage.say("A reel of 50 ATECC608 Trust&GO chips arrives, with a manifest by email. One chip is simulated.")
    stage.source("birthmark", "chip", "simulate", "chip", "--chip", "atecc608")
    stage.birthmark("manifest", "create", "--out", "shipment", "--count", str(_CHIPS), "--chip-ca", "chip/maker-ca.pem")
    trust = ("--signer", "shipment/signer.pem", "--trust-root", "shipment/root.pem")
    listed = "shipment/manifest.json"

    stage.say("Verify every entry: signature, signer, header, duplicates, certificate name, key and chain.")
    verified = stage.rows("manifest", "verify", listed, *trust)
    stage.expect(len(verified), _CHIPS, "entries verified")

    stage.say("A manipulated list is rejected, entry by entry.")
    entries = json.loads(stage.path(listed).read_text())
    entries[1]["header"]["uniqueId"] = "0123000000000000" + "01"
    changed = bytearray(entries[2]["payload"].encode())
    changed[200] = ord("A") if changed[200] != ord("A") else ord("B")
    entries[2]["payload"] = changed.decode()
    stage.path("tampered.json").write_text(json.dumps(entries))
    done = stage.birthmark("manifest", "verify", "tampered.json", *trust, "--json", may_fail=True)
    found = [row["error"] for line in done.stdout.splitlines() if "error" in (row := json.loads(line))]
    stage.expect(found, ["manifest.unique_id_changed", "manifest.signature_broken"], "refused")

    stage.say("Extract a certificate file for each chip.")
    stage.birthmark("manifest", "extract", listed, *trust, "--out", "certificates")
    stage.expect(len(list(stage.path("certificates").glob("*.pem"))), _CHIPS, "certificate files")

    stage.say("Start the local cloud and enroll the shipment twice. The second run changes nothing.")
    stage.serve()
    stage.expect(_outcomes(stage, listed, trust), {"created": _CHIPS}, "first run")
    stage.expect(_outcomes(stage, listed, trust), {"unchanged": _CHIPS}, "second run")

    stage.say("Switch on one device, with the key in its chip and Microsoft's SDK.")
    stage.birthmark("chip", "cert", "device", "--out", "device.pem")
    certificate = parse_pem(stage.path("device.pem").read_bytes())
    name = certificate.subject_cn or ""
    stage.expect(stage.state_of(name), "unassigned", "state before")
    stage.path("device.key").write_text("pkcs11:token=00ABC;object=device;type=private\n")
    stage.run_azure_device(name)
    stage.expect(stage.state_of(name), "assigned", "state after")
    stage.prove_at_hub(name, certificate.thumbprint.hex(), stage.endpoints["iothub"]["host"])
    others = DemoProof(f"{_CHIPS - 1} more", "in their chips", verified[-1]["thumbprint"], "on record", "unassigned")
    stage.prove(others)


def _outcomes(stage: Stage, listed: str, trust: tuple[str, ...]) -> dict[str, int]:
    return dict(Counter(row["outcome"] for row in stage.rows("device", "enroll-list", listed, *trust)))
