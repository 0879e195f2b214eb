"""Devices that prove themselves by a TPM."""

import base64
from collections.abc import Callable, Mapping

from fixes.agent_scenarios import APPLY, CONFIG
from fixes.applied import lines_into
from fixes.scenario import Scenario
from fixes.scene import Scene

from support.chips.tpm_vectors import RSA_EK
from support.chips.tpms import a_tpm

_ANOTHER = base64.b64encode(RSA_EK).decode()


def with_tpm(name: str, *lines: str) -> Callable[[Scene], None]:
    """A device with a TPM and a configuration for it; then these lines are typed."""

    def prepare(scene: Scene) -> None:
        tpm = scene.closing.enter_context(a_tpm())
        scene.must('eval "$(birthmark env)"')
        scene.must(f"mkdir -p root/etc/aziot; birthmark env --format aziot --registration-id {name} > {CONFIG}")
        scene.must(f"sed -i '/^.provisioning.attestation./,$d' {CONFIG}; export BIRTHMARK_AGENT_ROOT=root")
        with (scene.directory / CONFIG).open("a") as config:
            config.write(f'[provisioning.attestation]\nmethod = "tpm"\nregistration_id = "{name}"\n')
            config.write(f'[tpm]\ntcti = "{tpm.tcti}"\n')
        for line in lines:
            scene.must(line)

    return prepare


_FOREIGN = (
    "tpm2_createprimary -Q -C o -G ecc -c other.ctx && tpm2_evictcontrol -Q -C o -c other.ctx 0x81000100 && "
    "tpm2_flushcontext -t"
)
_ENROLLED = "eval \"$(birthmark agent tpm --root root 2>&1 | grep -o 'birthmark device enroll.*')\""


def with_another_key(scene: Scene) -> None:
    """A device on record in whose TPM another program keeps a key."""
    with_tpm("fix-tpm-place")(scene)
    with (scene.directory / CONFIG).open("a") as config:
        config.write("auth_key_index = 0x100\n")
    scene.must(_ENROLLED)
    scene.must(f"TPM2TOOLS_TCTI=$(sed -n 's/^tcti = \"\\(.*\\)\"/\\1/p' {CONFIG}) bash -c '{_FOREIGN}'")


TPM: Mapping[str, Scenario] = {
    "dps.tpm_mismatch": Scenario(
        APPLY, with_tpm("fix-tpm-other", f"birthmark device enroll fix-tpm-other --endorsement-key {_ANOTHER}")
    ),
    "dps.tpm_not_enrolled": Scenario(APPLY, with_tpm("fix-tpm-new")),
    "keys.tpm_place_taken": Scenario(APPLY, with_another_key, apply=lines_into(CONFIG)),
    "keys.tpm_unavailable": Scenario("birthmark agent tpm --tcti device:/dev/nowhere", is_instead=True),
    "pki.tpm_key_invalid": Scenario(
        "birthmark device enroll fix-tpm-key --endorsement-key AAAA", with_tpm("fix-tpm-key"), is_instead=True
    ),
}
