"""Test kits for other languages: each kit's own tests, and its sample as a user copies it."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.languages.toolchains import BUILDS, TOP, require_tool
from support.server.servers import clean_environment

pytestmark = pytest.mark.system
PATIENCE_S = 540.0


@dataclass(frozen=True, slots=True)
class LanguageKit:
    """A test kit with the commands of its language's build tool, which run in the kit and in its sample."""

    language: str
    version_command: Sequence[str]
    minimum: tuple[int, int]
    commands: Sequence[Sequence[str]]
    passed: str
    """Expression of a passed test in the output."""
    sample_commands: Sequence[Sequence[str]] = ()
    """Commands for the sample, if they differ."""

    def require(self) -> None:
        """Skip the test if the language's tools are missing or too old."""
        require_tool(self.version_command, self.minimum)
        if missing := {program for program, *_ in self.commands if shutil.which(program) is None}:
            pytest.skip(f"not installed: {', '.join(sorted(missing))}")

    def test(self, directory: Path, *, is_sample: bool = False) -> list[str]:
        """Run the tests of a directory, and return the names of those that pass, in lower-case words."""
        commands = (is_sample and self.sample_commands) or self.commands
        output = "".join(self._run(command, directory) for command in commands)
        names = re.findall(self.passed, output, re.MULTILINE)
        return [re.sub(r"(?<=[a-zA-Z])(?=[A-Z])|_", " ", name).lower() for name in names]

    def _run(self, command: Sequence[str], directory: Path) -> str:
        environment = clean_environment(HOME=str(Path.home()), CARGO_TARGET_DIR=str(BUILDS / "kits"))
        environment["PATH"] += f":{os.environ['PATH']}"  # the build tool's own directory
        done = subprocess.run(
            command,
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-6000:]}{done.stderr[-6000:]}"
        return done.stdout


MAVEN = (
    *("mvn", "--batch-mode", "--no-transfer-progress", f"-Dmaven.repo.local={BUILDS / 'maven'}"),
    *("-Dsurefire.reportFormat=plain", "-Dsurefire.useFile=false"),
)
"""Maven with its own repository, and with the name of each test in the output."""
KITS = [
    LanguageKit(
        "go",
        ("go", "version"),
        (1, 24),
        [("go", "vet", "./..."), ("go", "test", "-count=1", "-v", "./...")],
        passed=r"^\s*--- PASS: (\S+)",
    ),
    LanguageKit(
        "java",
        ("mvn", "--version"),
        (3, 6),
        [(*MAVEN, "install")],
        passed=r"^\[\w+\] [\w.]+\.(\w+)(?:\(.*)? -- Time elapsed: [\d.]+ s$",
        sample_commands=[(*MAVEN, "install", "-f", "..", "-Dmaven.test.skip"), (*MAVEN, "test")],
    ),
    LanguageKit(
        "node",
        ("node", "--version"),
        (20, 14),
        [("npm", "test")],
        passed=r"^ok \d+ - (.+)$",
        sample_commands=[("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"), ("npm", "test")],
    ),
    LanguageKit(
        "rust",
        ("cargo", "--version"),
        (1, 85),
        [("cargo", "fmt", "--check"), ("cargo", "test", "--locked")],
        passed=r"^test (?:\w+::)*(\w+)(?: - should panic)? \.\.\. ok$",
    ),
]


@pytest.fixture(params=KITS, ids=lambda kit: kit.language)
def kit(request: pytest.FixtureRequest) -> LanguageKit:
    found: LanguageKit = request.param
    found.require()
    return found


@pytest.fixture
def copy(kit: LanguageKit, tmp_path: Path) -> Path:
    """Return a copy of the kit, without what was built in it."""
    return Path(shutil.copytree(TOP / "kits" / kit.language, tmp_path / kit.language, ignore=_built))


def _built(_directory: str, names: list[str]) -> set[str]:
    return {"target", "node_modules"} & set(names)


PACKED = [
    ("node", ("npm", "pack", "--dry-run"), {"birthmark.cjs", "package.json", "README.md"}),
    ("rust", ("cargo", "package", "--allow-dirty", "--list"), {"Cargo.toml", "README.md", "src/json.rs", "src/lib.rs"}),
]


@pytest.mark.parametrize(("language", "command", "wanted"), PACKED, ids=[language for language, *_ in PACKED])
def test_a_package_of_a_kit_has_its_code_and_no_sample(
    language: str, command: tuple[str, ...], wanted: set[str], tmp_path: Path
) -> None:
    (kit,) = [one for one in KITS if one.language == language]
    kit.require()
    copy = shutil.copytree(TOP / "kits" / language, tmp_path / language, ignore=_built)
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=True)
    words = set((done.stdout + done.stderr).split())
    assert wanted <= words
    assert [word for word in words if "sample" in word] == []


def test_the_tests_of_the_kit_pass(kit: LanguageKit, copy: Path) -> None:
    passed = kit.test(copy)
    assert any("message" in name for name in passed)
    assert any("rejected" in name for name in passed)


def test_the_sample_connects_a_device_and_sees_a_refusal(kit: LanguageKit, copy: Path) -> None:
    passed = kit.test(copy / "sample", is_sample=True)
    assert any("a device sends a message" in name for name in passed)
    assert any("a disabled device does not connect" in name for name in passed)
