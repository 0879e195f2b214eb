"""Build a release from the commit that is checked out: wheel, sdist, bill of materials, provenance, digests.

python tools/release_build.py [--out dist] [--builder URI] [--deb amd64] [--deb arm64]

Two builds of one commit are the same bytes, wherever they are made. What is not committed is not in them.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import release_deb
from release_provenance import commit_of, provenance
from release_sbom import sbom

TOP = Path(__file__).resolve().parents[1]
HERE = "https://github.com/birthmark/birthmark/blob/main/scripts/package#by-hand"


def source_of(directory: Path) -> Path:
    """Write the commit's tree into a new directory; return it."""
    source = directory / "source"
    source.mkdir()
    # As it was committed, whatever whoever builds has in a configuration of git.
    plain = ["-c", "core.autocrlf=false", "-c", "core.eol=lf", "-c", "tar.umask=0022"]
    archive = subprocess.run(["git", "-C", str(TOP), *plain, "archive", "HEAD"], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", str(source)], input=archive, check=True)
    return source


def build(source: Path, out: Path, at: int) -> list[Path]:
    """Build sdist and wheel, by the locked tools; return them."""
    made = os.environ | {"PYTHONPATH": str(source / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, str(source / "tools/make_schema.py")], check=True, env=made)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(at), "PYTHONHASHSEED": "0", "TZ": "UTC"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}")
    return sorted(path for path in out.iterdir() if path.suffix == ".whl" or path.name.endswith(".tar.gz"))


def packages(source: Path, wheel: Path, out: Path, arch: str, at: int) -> list[Path]:
    """Build Debian's packages by the commit's own tools, units and scripts; return them."""
    command = [sys.executable, str(source / "tools/release_deb.py"), "--wheel", str(wheel), "--out", str(out)]
    done = subprocess.run(
        [*command, "--arch", arch, "--at", str(at)],
        env={**os.environ, "PYTHONPATH": str(source / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}")
    return [Path(line) for line in done.stdout.splitlines()]


def empty(out: Path) -> None:
    """Have it there, and nothing in it. What is no release stays, and ends this."""
    if out.exists() and any(out.iterdir()) and not (out / "SHA256SUMS").exists():
        sys.exit(f"{out} is not empty, and has no SHA256SUMS as a release has: nothing was removed.")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "SHA256SUMS").touch()  # so that a build that fails is no obstacle to the next


def check(artifacts: list[Path]) -> None:
    """Let other programs look at what was built."""
    wheels = [str(path) for path in artifacts if path.suffix == ".whl"]
    for command in (["check-wheel-contents", *wheels], ["twine", "check", "--strict", *map(str, artifacts)]):
        program = str(Path(sys.executable).with_name(command[0]))
        done = subprocess.run([program, *command[1:]], cwd=TOP, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{done.stdout}{done.stderr}")


def write_sums(out: Path) -> None:
    """Write SHA256SUMS of everything that lies in `out`."""
    files = sorted(path for path in out.iterdir() if path.is_file() and path.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (out / "SHA256SUMS").write_text("".join(lines))


def release(out: Path, builder: str, debs: list[str]) -> list[Path]:
    """Build it all into `out`, which is emptied first."""
    empty(out)
    commit, at = commit_of(TOP)
    with tempfile.TemporaryDirectory() as directory:
        source = source_of(Path(directory))
        lock = (source / "requirements.lock").read_bytes()
        artifacts = build(source, out, at)
        check(artifacts)
        (wheel,) = [path for path in artifacts if path.suffix == ".whl"]
        stem = "-".join(wheel.name.split("-")[:2])
        bill = out / f"{stem}.cdx.json"
        bill.write_bytes(sbom(wheel, (source / "pyproject.toml").read_text(), lock.decode(), at))
        artifacts.append(bill)
        artifacts += [one for arch in debs for one in packages(source, wheel, out, arch, at)]
    statement = provenance(artifacts, commit=commit, at=at, lock=lock, builder=builder)
    (out / f"{stem}.provenance.json").write_bytes(statement)
    write_sums(out)
    return sorted(out.iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=TOP / "dist", help="directory, which is emptied (default: dist)")
    parser.add_argument("--builder", default=HERE, help="URI of who builds, for the provenance")
    kinds = sorted(release_deb.PLATFORMS)
    parser.add_argument("--deb", action="append", default=[], choices=kinds, help="Debian packages for such machines")
    given = parser.parse_args()
    if subprocess.run(["git", "-C", str(TOP), "diff", "--quiet", "HEAD"], check=False).returncode:
        print("What is not committed is not in it.", file=sys.stderr)
    for path in release(given.out.resolve(), given.builder, given.deb):
        print(path)


if __name__ == "__main__":
    main()
