"""The agent: its configuration, its files, and what it is told."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from fixes.applied import lines_into
from fixes.est_peer import issuing_for
from fixes.scenario import Scenario, after, typed
from fixes.scene import Scene, literals_in

CONFIG = "root/etc/aziot/config.toml"
APPLY = "birthmark agent apply --root root"
# The devices of EST may register.
ON_RECORD = (
    'eval "$(birthmark env)"',
    "birthmark dps ca ls | grep -q est-root || birthmark dps ca create est-root $BIRTHMARK_DATA/ca/root.pem --verified",
    "birthmark device ls | grep -q est-group || birthmark device enroll-group est-group --ca-name est-root",
)


def configured(name: str, *changes: str) -> Callable[[Scene], None]:
    """A device with a configuration that works but for these changes by sed; EST's devices may register."""
    return typed(
        *ON_RECORD,
        f"mkdir -p root/etc/aziot; birthmark env --format aziot --registration-id {name} > {CONFIG}",
        *(f"sed -i '{change}' {CONFIG}" for change in changes),
    )


def with_new_keys_in(token: str) -> str:
    """Have new keys made in this token."""
    lines = f'[aziot_keys]\\npkcs11_lib_path = "%s"\\npkcs11_base_slot = "pkcs11:token={token}"\\n'
    return f"printf '{lines}' $(ls /usr/lib/*/softhsm/libsofthsm2.so) >> {CONFIG}"


def inline(identity: str) -> tuple[str, ...]:
    """The configuration in its short form."""
    first = f's|^registration_id.*|&\\nidentity_cert = {identity}\\nidentity_pk = "file:///device.key"|'
    return first, r"/identity_cert\]/,/^$/d", r"/auto_renew\]/,/^$/d"


def given(scene: Scene) -> None:
    """A certificate that was made elsewhere."""
    here = scene.directory
    configured("fix-given", *inline(f'"file://{here}/fix-given.cert.pem"'))(scene)
    scene.must("birthmark ca init --name Elsewhere --dir ca; birthmark ca issue fix-given --dir ca")
    scene.must(f"sed -i 's|file:///device.key|file://{here}/fix-given.key.pem|' {CONFIG}")


def running(name: str) -> Callable[[Scene], None]:
    """An agent that runs until it is told to stop."""

    def prepare(scene: Scene) -> None:
        configured(name)(scene)
        scene.must("(birthmark agent run --root root > told 2>&1 < /dev/null &) ; true")
        deadline = time.monotonic() + 30
        while "connected" not in (scene.directory / "told").read_text():
            assert time.monotonic() < deadline, (scene.directory / "told").read_text()
            time.sleep(0.2)

    return prepare


KEEPER = """
import asyncio, sys
from birthmark.agent import connect
async def main():
    async with connect(root=sys.argv[1]) as device:
        print("connected", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


def stuck(scene: Scene) -> None:
    """An agent that does nothing any more."""
    running("fix-stuck")(scene)
    scene.must("kill -STOP $(cat $(find root -name birthmark.lock))")


def in_program(scene: Scene) -> None:
    """A program of its own that keeps the identity."""
    configured("fix-program")(scene)
    (scene.directory / "keeper.py").write_text(KEEPER)
    scene.must("(python3 keeper.py root > told 2>&1 < /dev/null &) ; true")
    deadline = time.monotonic() + 30
    while "connected" not in (scene.directory / "told").read_text():
        assert time.monotonic() < deadline, (scene.directory / "told").read_text()
        time.sleep(0.2)


def with_payload(name: str, *lines: str) -> Callable[[Scene], None]:
    """A device whose configuration names a payload file, which these lines make."""
    named = configured(name, 's|^id_scope.*|&\\npayload = { uri = "file://HERE/payload" }|')
    return after(named, f'sed -i "s|HERE|$PWD|" {CONFIG}', *lines)


SHARED = """\
[provisioning]
source = "manual"
iothub_hostname = "HOST"
device_id = "fix-shared"
[provisioning.authentication]
method = "sas"
device_id_pk = { uri = "file://HERE/key" }
"""


def with_shared_key(scene: Scene) -> None:
    """A device whose shared key's file holds something else."""
    scene.must('eval "$(birthmark env)"; birthmark hub device create fix-shared --json > made.json')
    assert scene.server is not None
    text = SHARED.replace("HOST", scene.server.address).replace("HERE", str(scene.directory))
    trust = f'trust_bundle_cert = "file://{scene.server.endpoints["trust_bundle"]}"\n'
    (scene.directory / "shared.toml").write_text(trust + text)
    scene.must("chmod 0600 shared.toml; echo 'not base64!' > key; chmod 0600 key")


def with_primary_key(scene: Scene, _fix: str) -> None:
    made = json.loads((scene.directory / "made.json").read_text())
    (scene.directory / "key").write_text(made["primary_key"])


def configured_anew(scene: Scene, fix: str) -> None:
    """Type each; the last prints a configuration."""
    for command in literals_in(fix):
        printed = scene.must(command)
    (scene.directory / CONFIG).write_text(printed)


def with_edge_ca_of_another(scene: Scene) -> None:
    """An EST server that issues what it likes, and no CAs."""
    configured("fix-edge", '1i edge_ca = { method = "est" }')(scene)
    issuing_for(scene, "fix-edge", Path(CONFIG))


def named_otherwise(scene: Scene) -> None:
    """An EST server that has its own mind about names, and a Birthmark server that trusts its CA."""
    configured("fix-asked")(scene)
    issuing_for(scene, "fix-got", Path(CONFIG))


AGENT: Mapping[str, Scenario] = {
    "agent.certificate_missing": Scenario(
        APPLY,
        after(
            configured("fix-files", 's|^trusted_certs = .*|trusted_certs = ["file:///nowhere.pem"]|'),
            "export SSL_CERT_FILE=/nowhere.pem",
        ),
        apply=configured_anew,
    ),
    "agent.certificate_name": Scenario(APPLY, named_otherwise, apply=lines_into(CONFIG)),
    "agent.config_invalid": Scenario(
        APPLY, configured("fix-invalid", 's|^threshold = .*|threshold = "80 percent"|'), apply=lines_into(CONFIG)
    ),
    "agent.config_unsupported": Scenario(
        APPLY,
        configured("fix-unsupported", 's|^source = "dps"|source = "none"|'),
        apply=lines_into(CONFIG),
    ),
    "agent.not_a_ca": Scenario(APPLY, with_edge_ca_of_another, apply=lines_into(CONFIG)),
    "keys.shared_key_invalid": Scenario(
        "birthmark agent apply -c shared.toml --root shared", with_shared_key, apply=with_primary_key
    ),
    "agent.payload_invalid": Scenario(APPLY, with_payload("fix-payload", "echo site=osaka > payload")),
    "agent.payload_missing": Scenario(APPLY, with_payload("fix-no-payload")),
    "agent.not_issued_here": Scenario("birthmark agent renew --root root", given, apply=lines_into(CONFIG)),
    "agent.token_unusable": Scenario(
        APPLY,
        after(configured("fix-token"), 'eval "$(birthmark chip simulate chip)"', with_new_keys_in("nobody")),
        is_instead=True,
    ),
    "agent.in_program": Scenario("birthmark agent stop --root root", in_program, is_instead=True),
    "agent.running": Scenario(APPLY, running("fix-running")),
    "agent.slow": Scenario("birthmark agent stop --root root", stuck),
    "agent.state_not_writable": Scenario(
        APPLY, after(configured("fix-state"), "touch root/var", "ls -ld root/var"), is_instead=True
    ),
    "agent.subject_invalid": Scenario(
        APPLY,
        configured("fix-subject", 's|^common_name = .*|subject = { CN = "fix-subject", C = "Switzerland" }|'),
        apply=lines_into(CONFIG),
    ),
}
