"""One worker asks another: one that has died, and one that is too slow. Both are taken over or get well."""

from collections.abc import Callable, Mapping

from fixes.applied import by_itself
from fixes.scenario import Scenario
from fixes.scene import Scene


def having(**variables: str) -> Callable[[Scene], None]:
    def prepare(scene: Scene) -> None:
        scene.environment |= variables

    return prepare


ASK = 'python "$TESTS/support/store/bus_asking.py"'

BUS: Mapping[str, Scenario] = {
    "bus.no_answer": Scenario(ASK, having(WORKER="main", TAKES_S="60"), apply=by_itself(having(TAKES_S="0"))),
    "bus.nobody_there": Scenario(ASK, having(WORKER="gone", TAKES_S="0"), apply=by_itself(having(WORKER="main"))),
}
