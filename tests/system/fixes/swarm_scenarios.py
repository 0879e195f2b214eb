"""Simulated devices: what keeps a run from beginning."""

from collections.abc import Mapping

from fixes.scenario import Scenario, typed

RUN = "birthmark swarm run --devices 3 --to local --duration 3s --interval 1s --ramp 50"

SWARM: Mapping[str, Scenario] = {
    "swarm.no_devices": Scenario("birthmark swarm run --to local", is_instead=True),
    "swarm.report_form": Scenario(f"{RUN} --report run.xls", is_instead=True),
    "swarm.report_invalid": Scenario("birthmark swarm report run.json", typed("echo '{}' > run.json")),
    "swarm.target_not_named": Scenario(
        "birthmark swarm run --devices 3 --to aws --yes", typed('eval "$(birthmark env)"'), is_instead=True
    ),
    "swarm.scenario_invalid": Scenario(
        "birthmark swarm run swarm.toml",
        typed("printf '[group.meters]\\ndevices = 3\\nintervals = 5\\n' > swarm.toml"),
        is_instead=True,
    ),
    "swarm.identity_missing": Scenario(f"{RUN} --from files", is_instead=True),
    "swarm.directory_foreign": Scenario(f"{RUN} --from est", typed("birthmark swarm prepare --devices 3 --to local")),
    "swarm.directory_open": Scenario(RUN, typed("mkdir -p swarm-devices", "chmod 777 swarm-devices"), types_all=True),
    "swarm.directory_in_use": Scenario(
        "birthmark swarm prepare --devices 3 --to local",
        typed(
            "birthmark swarm prepare --devices 3 --to local",
            # Again where it meets the look below, which holds the lock for an instant.
            "(for n in 1 2 3; do birthmark swarm run --devices 3 --to local --duration 30s && break; done "
            "> /dev/null 2>&1 &)",
            "until [ -e swarm-devices/.lock ] && ! flock -n swarm-devices/.lock true; do sleep 0.2; done",
        ),
        is_instead=True,
    ),
    "swarm.descriptors_short": Scenario(
        "prlimit --nofile=90:90 birthmark swarm run --devices 30 --to local --duration 4s --interval 1s",
        is_instead=True,
        needs_root=True,
    ),
}
