"""P50: a job of a CI, from wheels that are kept to the first green test of an unmodified SDK."""

import re
import subprocess
import sys
import time
import venv
from pathlib import Path

from rig import Rig

from measures.measure import Measure, Sample
from support.server.servers import clean_environment

_TOP = Path(__file__).parents[2]
_BUDGET_S = 15.0
_WANTED = ("azure-iot-device", "awsiotsdk", "pytest-xdist")
_TEST = re.compile(r"^```python file=test_azure\.py\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class FirstGreenTest(Measure):
    """A new environment, what examples/ci installs, and the first test of docs/howto/test-kit.md."""

    name, title, peer = "P50", "CI job from kept wheels to its first green test", "a budget of 15 s"
    unit, gate, aim = "s", 1.0, 0.7

    def __init__(self, rig: Rig) -> None:
        self._directory, self._runs = rig.directory, 0
        self._wheels = rig.directory / "wheels"
        what = (f"{_TOP}[pytest]", *_WANTED)
        subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "-w", self._wheels, *what], check=True)
        found = _TEST.search((_TOP / "docs" / "howto" / "test-kit.md").read_text())
        assert found is not None
        (rig.directory / "test_azure.py").write_text(found[1])

    def round(self) -> Sample:
        self._runs += 1
        place = self._directory / f"job-{self._runs}"
        began = time.perf_counter()
        venv.create(place, with_pip=True)
        pip = [place / "bin" / "pip", "install", "-q", "--no-index", "--find-links", self._wheels]
        subprocess.run([*pip, "birthmark[pytest]", *_WANTED], check=True)
        test = [place / "bin" / "python", "-m", "pytest", "-q", "test_azure.py"]
        done = subprocess.run(
            test, cwd=self._directory, env=clean_environment(HOME=str(place)), stdout=subprocess.PIPE, check=True
        )
        assert b"1 passed" in done.stdout
        return Sample(time.perf_counter() - began, _BUDGET_S)
