"""Exchanging the root of a server of its own."""

from collections.abc import Mapping

from fixes.est_scenarios import ANY, POST, asking
from fixes.est_wire_scenarios import OWN_SERVER
from fixes.scenario import Scenario, after, typed
from fixes.scene import Scene, commands_in

START, NEXT, BACK = (f"birthmark pki rollover {word} --yes" for word in ("start", "next", "back"))


def agreed(scene: Scene, fix: str) -> None:
    """Type the fix's last command, and say yes."""
    scene.must(f"{commands_in(fix)[-1]} --yes")


ROLLOVER: Mapping[str, Scenario] = {
    "ca.no_rollover": Scenario(NEXT, is_instead=True, config=OWN_SERVER),
    "ca.rollover_running": Scenario(START, typed(START), is_instead=True, config=OWN_SERVER),
    "ca.rollover_anchors_missing": Scenario(
        "birthmark pki rollover status --json | grep -q 'the new signs' || " + NEXT,
        after(asking, ANY, POST, START),
        apply=agreed,
        config=OWN_SERVER,
    ),
    "ca.rollover_groups_missing": Scenario(
        NEXT,
        typed(
            'birthmark dps ca create root "$BIRTHMARK_DATA/trust.pem" --verified',
            "birthmark device enroll-group all --ca-name root",
            START,
        ),
        config=OWN_SERVER,
    ),
    "ca.rollover_group_full": Scenario(
        "birthmark pki rollover groups",
        typed(
            "birthmark ca init --name Other --flat --dir other",
            'birthmark dps ca create root "$BIRTHMARK_DATA/trust.pem" --verified',
            "birthmark dps ca create other other/root.pem --verified",
            "birthmark device enroll-group all --ca-name root --secondary other",
            START,
        ),
        config=OWN_SERVER,
    ),
    "ca.rollover_old_used": Scenario(
        NEXT,
        after(asking, ANY, POST, START, f"{NEXT} --share 0"),
        apply=lambda scene, fix: scene.must(commands_in(fix)[-1]),
        config=OWN_SERVER,
    ),
    "ca.rollover_new_used": Scenario(
        BACK,
        after(asking, START, NEXT, ANY, POST, BACK),
        is_instead=True,
        config=OWN_SERVER,
    ),
}
