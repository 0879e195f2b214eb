"""For which machines what an extra needs comes ready built, as pip resolves it for them. PyPI is asked alone.

python tools/wheels.py [MACHINE…]
"""

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
MACHINES = {
    "x86-64, glibc": ("manylinux_2_28_x86_64", "manylinux2014_x86_64"),
    "x86-64, musl": ("musllinux_1_2_x86_64", "musllinux_1_1_x86_64"),
    "aarch64, glibc": ("manylinux_2_28_aarch64", "manylinux2014_aarch64"),
    "aarch64, musl": ("musllinux_1_2_aarch64", "musllinux_1_1_aarch64"),
    "armv7, glibc": ("manylinux_2_31_armv7l", "manylinux2014_armv7l"),
}
PROMISED = {
    "x86-64, glibc": {"base", "token", "server", "workers"},
    "x86-64, musl": {"base"},
    "aarch64, glibc": {"base", "token", "server", "workers"},
    "aarch64, musl": {"base"},
}
EXTRAS = ("base", "token", "server", "workers")


def packages_of(extra: str) -> list[str]:
    """Return what an extra needs by itself, and what those that it includes need."""
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    if extra == "base":
        return list(project["dependencies"])
    found: list[str] = []
    for one in project["optional-dependencies"][extra]:
        included = one.startswith(f"{project['name']}[")
        found += packages_of(one.partition("[")[2].rstrip("]")) if included else [one]
    return found


def resolves(machine: str, packages: list[str]) -> bool:
    """Say whether pip finds wheels for all of them and what they need, together."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed", "--no-input"]
    command += ["--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp", "--target", "none"]
    command += [word for platform in MACHINES[machine] for word in ("--platform", platform)]
    return not subprocess.run([*command, *packages], capture_output=True, check=False).returncode


def compiled(machine: str, extra: str) -> Iterator[str]:
    """Yield which of an extra's packages would have to be compiled there."""
    packages = packages_of(extra)
    if not resolves(machine, packages):
        yield from (one.partition(">")[0] for one in packages if not resolves(machine, [one]))


def main() -> None:
    missing = False
    for machine in sys.argv[1:] or MACHINES:
        for extra in EXTRAS:
            told = ", ".join(compiled(machine, extra))
            missing |= bool(told) and extra in PROMISED.get(machine, ())
            print(f"{machine:15} {extra:8} {'ready built' if not told else f'to be compiled: {told}'}", flush=True)
    sys.exit(missing)


if __name__ == "__main__":
    main()
