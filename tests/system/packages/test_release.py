"""A release: the same bytes from two builds, and what others say of its bill of materials and its provenance."""

import hashlib
import json
import os
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path
from zipfile import ZipFile

import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from packaging.requirements import Requirement

import birthmark
from support.azure.node_clients import NODE

pytestmark = pytest.mark.system

TOP = Path(__file__).parents[3]
VALIDATE = """
const { Validation, Spec } = require('@cyclonedx/cyclonedx-library');
const text = require('node:fs').readFileSync(0, 'utf8');
new Validation.JsonStrictValidator(Spec.Version.v1dot6).validate(text)
  .then((wrong) => console.log(JSON.stringify(wrong)));
"""


def only(release: Path, ending: str) -> Path:
    (found,) = [path for path in release.iterdir() if path.name.endswith(ending)]
    return found


def bill(release: Path) -> dict[str, object]:
    read: dict[str, object] = json.loads(only(release, ".cdx.json").read_text())
    return read


def test_every_file_says_the_version(release: Path) -> None:
    names = {path.name for path in release.iterdir()} - {"SHA256SUMS"}
    assert all(name.startswith(f"birthmark-{birthmark.__version__}") for name in names)
    assert len(names) == 4


def test_every_file_of_the_sources_is_in_the_wheel(release: Path) -> None:
    tracked = ["git", "ls-files", "src/birthmark"]
    sources = subprocess.run(tracked, cwd=TOP, capture_output=True, text=True, check=True).stdout.split()
    packed = set(ZipFile(only(release, ".whl")).namelist())
    assert [name for name in sources if name.removeprefix("src/") not in packed] == []


def test_another_build_elsewhere_is_the_same_bytes(release: Path, tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(TOP), str(tmp_path / "else where")], check=True)
    (tmp_path / "else where" / "src/birthmark/left.py").write_text("# not committed\n")
    settings = tmp_path / "gitconfig"
    settings.write_text("[core]\n\tautocrlf = true\n[tar]\n\tumask = 0077\n")
    build = [sys.executable, "else where/tools/release_build.py", "--out", str(tmp_path / "again")]
    strange = {**os.environ, "TZ": "Asia/Tokyo", "LC_ALL": "C", "SOURCE_DATE_EPOCH": "1"}
    strange["GIT_CONFIG_GLOBAL"] = str(settings)
    subprocess.run(build, cwd=tmp_path, env=strange, umask=0o077, check=True, capture_output=True)
    first = {path.name: path.read_bytes() for path in release.iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == first


def test_a_directory_that_is_no_release_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("here")
    build = [sys.executable, str(TOP / "tools/release_build.py"), "--out", str(tmp_path)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert (done.returncode, "SHA256SUMS" in done.stderr) == (1, True)
    assert (tmp_path / "mine").read_text() == "here"


def test_another_build_of_a_package_for_debian_is_the_same_bytes(
    release: Path, packages: dict[str, Path], tmp_path: Path
) -> None:
    first = packages["birthmark-agent"]
    build = [sys.executable, str(TOP / "tools/release_deb.py"), "--wheel", str(only(release, ".whl"))]
    build += ["--out", str(tmp_path), "--only", "birthmark-agent"]
    strange = {**os.environ, "TZ": "Asia/Tokyo", "LC_ALL": "C", "SOURCE_DATE_EPOCH": "1"}
    subprocess.run(build, cwd=tmp_path, env=strange, umask=0o077, check=True, capture_output=True)
    assert (tmp_path / first.name).read_bytes() == first.read_bytes()


def test_the_digests_are_right(release: Path) -> None:
    checked = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=release, check=False)
    assert checked.returncode == 0


def test_another_implementation_takes_the_bill_of_materials(release: Path) -> None:
    text = only(release, ".cdx.json").read_text()
    told = subprocess.run(
        ["node", "-e", VALIDATE], input=text, capture_output=True, text=True, check=True, cwd=NODE, timeout=60
    )
    assert json.loads(told.stdout) is None


def test_the_bill_has_what_the_base_needs_and_nothing_of_our_own_tests(release: Path) -> None:
    components = {one["name"]: one for one in bill(release)["components"]}  # type: ignore[attr-defined]
    needed = [Requirement(one) for one in requires("birthmark") or ()]
    base = {one.name for one in needed if one.marker is None}
    assert base <= {name for name, one in components.items() if one["scope"] == "required"}
    assert {"starlette", "boto3", "awscrt"} <= {name for name, one in components.items() if one["scope"] == "optional"}
    assert not {"hypothesis", "ruff", "mypy", "twine"} & set(components)
    of_pypi = [one for one in components.values() if one["purl"].startswith("pkg:pypi/")]
    assert all(one["externalReferences"][0]["hashes"] for one in of_pypi)


def test_the_bill_has_what_others_wrote_and_the_wheel_brings(release: Path) -> None:
    """Whoever looks for known holes looks there: each file that its maker minified, by its package and digest."""
    listed: dict[str, str] = {}
    with ZipFile(only(release, ".whl")) as wheel:
        for package in bill(release)["components"]:  # type: ignore[attr-defined]
            for file in package.get("components", ()):
                content = wheel.read(file["name"])
                assert hashlib.sha256(content).hexdigest() == file["hashes"][0]["content"]
                listed[file["name"]] = package["purl"]
                if file["name"].endswith(("/htmx.min.js", "/uplot.min.js")):  # they say their version
                    assert package["version"].encode() in content
        assert {name for name in wheel.namelist() if ".min." in name} == set(listed)
    assert all(purl.startswith("pkg:npm/") for purl in listed.values())


def test_the_provenance_is_a_statement_as_in_toto_reads_it(release: Path) -> None:
    read = json.loads(only(release, ".provenance.json").read_text())
    statement = json_format.ParseDict(read, statement_pb2.Statement())
    Statement.copy_from_pb(statement).validate()
    predicate = json_format.ParseDict(read["predicate"], provenance_pb2.Provenance())
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=TOP, capture_output=True, text=True, check=True)
    assert predicate.build_definition.resolved_dependencies[0].digest["gitCommit"] == head.stdout.strip()
    assert {one.name for one in statement.subject} == {
        path.name for path in release.iterdir() if path.suffix in {".whl", ".gz"} or path.name.endswith(".cdx.json")
    }
