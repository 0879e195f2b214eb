"""The production line: boards and chips that were seen before, and a station that cannot go on."""

from collections.abc import Mapping

from fixes.applied import with_file
from fixes.element_scenarios import chip
from fixes.scenario import Scenario

INTAKE_1 = "birthmark chip intake B-1"
ANOTHER_CHIP = 'eval "$(birthmark chip simulate chip-2 --chip se050)"'
VERIFY = "birthmark manifest verify station/intake-0001.jsonl"

INTAKE: Mapping[str, Scenario] = {
    "intake.board_of_another_chip": Scenario(INTAKE_1, chip(INTAKE_1, ANOTHER_CHIP), is_instead=True),
    "intake.bundle_damaged": Scenario(
        "birthmark chip intake B-2", chip(INTAKE_1, "sed -i s/B-1/B-9/ station/intake-0001.jsonl")
    ),
    "intake.chip_of_another_board": Scenario("birthmark chip intake B-2", chip(INTAKE_1), is_instead=True),
    "intake.maker_unknown": Scenario(
        f"{INTAKE_1} --trust-root other/maker-ca.pem $ROOT",
        chip("birthmark chip simulate other > /dev/null"),
        apply=with_file("chip/maker-ca.pem", "ROOT"),
    ),
    "intake.name_unusable": Scenario("birthmark chip intake 'B\"1'", chip(), is_instead=True),
    "intake.not_this_chip": Scenario(
        f"{INTAKE_1} --cert copied.pem",
        chip(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout k -subj /CN=c -out copied.pem"
        ),
        is_instead=True,
    ),
    "intake.nothing_taken": Scenario("birthmark chip intake --seal", chip()),
    "intake.station_busy": Scenario(
        "birthmark chip intake B-2",
        chip(
            "birthmark chip intake B-1 --station other; mkdir station",
            "flock station/.lock sleep 30 > /dev/null 2>&1 < /dev/null & sleep 0.5",
        ),
        is_instead=True,
    ),
    "intake.station_unusable": Scenario(INTAKE_1, chip(INTAKE_1, "rm station/station.key")),
    "intake.taken_already": Scenario(INTAKE_1, chip(INTAKE_1), is_instead=True),
    "manifest.not_whole": Scenario(f"{VERIFY} --station station/station.pem", chip(INTAKE_1)),
    "manifest.station_unknown": Scenario(
        f"{VERIFY} $STATION",
        chip(INTAKE_1, "birthmark chip intake --seal"),
        apply=with_file("station/station.pem", "STATION"),
    ),
    "provenance.nothing_known": Scenario("birthmark device provenance nobody", is_instead=True),
}
