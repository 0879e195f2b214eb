"""The packages for Debian 12: `birthmark`, a server and all that its machine needs, and `birthmark-agent`, for devices.

python tools/release_deb.py --wheel dist/birthmark-….whl --out dist [--arch amd64]

Each is an environment of its own below /usr/lib with the locked wheels of PyPI, which pip fetches and whose digests it
checks; nothing is compiled, so that one machine makes the packages of another kind. Units, users and directories are
those of `birthmark server install` and `agent install`. Two builds are the same bytes.
"""

import argparse
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

from packaging.utils import canonicalize_name

from birthmark.cli.systemd_units import agent_service, server_service
from make_man import pages
from release_provenance import commit_of
from release_sbom import graph

TOP = Path(__file__).resolve().parents[1]
SCRIPTS = TOP / "deploy" / "debian"
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
HOMEPAGE: str | None = PROJECT.get("urls", {}).get("Homepage")
WHO = next(iter(PROJECT.get("maintainers") or PROJECT.get("authors") or ()), {})
MAINTAINER = f"{WHO.get('name', 'Birthmark')} <{WHO.get('email', 'nobody@birthmark.invalid')}>"
"""Debian wants one. Where the project names nobody the address says that it is none (RFC 2606)."""
PYTHON = "3.11"
PLATFORMS = {
    "amd64": ("manylinux_2_28_x86_64", "manylinux2014_x86_64"),
    "arm64": ("manylinux_2_28_aarch64", "manylinux2014_aarch64"),
}
SERVER_TOML = """\
# What the server is told: docs/reference/server-config.md. Without a host it listens on loopback alone.
# host = "cloud.example"       # the name by which devices reach it, for good
# listen = ["0.0.0.0", "::"]
# names = ["cloud", "10.0.0.5"]
# health_metrics = true
"""
VARIABLES = """\
# Environment variables of {unit}; see systemd.exec(5), EnvironmentFile.
# {example}
"""


@dataclass(frozen=True, slots=True)
class Package:
    """What one package is."""

    name: str
    extra: str
    short: str
    long: str
    unit: str
    unit_text: str
    etc: Mapping[str, str]
    fields: Mapping[str, str] = field(default_factory=dict)
    programs: tuple[str, ...] = ("birthmark",)
    has_all_pages: bool = False

    @property
    def home(self) -> str:
        """Where its environment is, below the root."""
        return f"usr/lib/{self.name}"


PACKAGES = (
    Package(
        "birthmark",
        "workers",
        "identity of devices: own server, local cloud",
        "An EST server with its own CA, and a local cloud for the unmodified clients\n"
        " of Azure DPS, Azure IoT Hub and AWS IoT Core. The first start makes everything\n"
        " that it needs in /var/lib/birthmark.",
        "birthmark-server",
        server_service(
            "/usr/lib/birthmark/bin/birthmark",
            None,
            config="/etc/birthmark/server.toml",
            variables="/etc/default/birthmark",
        ).unit,
        {
            "etc/birthmark/server.toml": SERVER_TOML,
            "etc/default/birthmark": VARIABLES.format(
                unit="birthmark-server", example="BIRTHMARK_DATABASE=postgresql://birthmark:PASSWORD@HOST/birthmark"
            ),
        },
        {"Suggests": "postgresql, birthmark-agent"},
        ("birthmark", "nats-server"),
        has_all_pages=True,
    ),
    Package(
        "birthmark-agent",
        "token",
        "identity of this device: certificates that renew themselves",
        "Gets a certificate for a key in a secure element or a file, registers at Azure\n"
        " DPS, AWS IoT or a Birthmark server, stays connected and renews. It begins when\n"
        " there is an /etc/aziot/config.toml.",
        "birthmark-agent",
        agent_service("/usr/lib/birthmark-agent/bin/birthmark", variables="/etc/default/birthmark-agent").unit,
        {
            "etc/default/birthmark-agent": VARIABLES.format(
                unit="birthmark-agent", example="https_proxy=http://USER:PASSWORD@proxy.example:3128"
            )
        },
        # They own the same places.
        {"Conflicts": "aziot-identity-service, aziot-edge", "Suggests": "birthmark"},
    ),
)
SOURCE = f"Source: {HOMEPAGE}\n" if HOMEPAGE else ""
LICENCE = f"""\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: birthmark
{SOURCE}Comment: The packages of PyPI that this one brings have their licences beside them,
 below /usr/lib/NAME/lib/python{PYTHON}/site-packages/*.dist-info; which they are, with
 versions and digests, is in birthmark.cdx.json.gz in this directory.

Files: *
Copyright: 2026 the authors of Birthmark
License: Apache-2.0
 The text of this licence is in /usr/share/common-licenses/Apache-2.0.
"""
OVERRIDES = """\
# An environment of its own, with libraries as their makers built and locked them.
{name}: wrong-path-for-interpreter *
{name}: absolute-symlink-in-top-level-folder *
{name}: embedded-library *
{name}: custom-library-search-path *
{name}: hardening-no-fortify-functions *
{name}: hardening-no-pie *
{name}: hardening-no-bindnow *
{name}: hardening-no-relro *
{name}: library-not-linked-against-libc *
{name}: shared-library-lacks-prerequisites *
{name}: statically-linked-binary *
{name}: unstripped-binary-or-object *
{name}: unstripped-static-library *
{name}: undeclared-elf-prerequisites *
{name}: unusual-interpreter *
{name}: package-contains-vcs-control-file *
{name}: package-contains-documentation-outside-usr-share-doc *
{name}: extra-license-file *
{name}: script-not-executable *
{name}: executable-not-elf-or-script *
{name}: national-encoding *
# It asks policy-rc.d itself, and does not wait until the device is connected.
{name}: maintainer-script-calls-systemctl *
{name}: command-with-path-in-maintainer-script *policy-rc.d*
# Files of an agent that root ran before it was packaged.
{name}: recursive-privilege-change *
{name}: repeated-path-segment *
{name}: privacy-breach-generic *
{name}: font-outside-font-dir *
# It is made of a checkout and is in no archive.
{name}: initial-upload-closes-no-bugs *
{name}: no-manual-page *
"""


def chosen(project: Mapping[str, object], lock: str, extra: str) -> str:
    """Return the lines of requirements.lock that `extra` and the base need."""
    _, reached = graph(project)
    wanted = {name for name, extras in reached.items() if extras & {"", extra}}
    blocks = re.findall(r"^(?:\S.*\n)(?:    .*\n)*", lock, re.MULTILINE)
    kept = [one for one in blocks if canonicalize_name(re.split(r"[=\s;]", one)[0]) in wanted]
    return "".join(line for one in kept for line in one.splitlines(keepends=True) if not line.startswith("    #"))


def environment(package: Package, root: Path, wheel: Path, requirements: str, arch: str) -> None:
    """Lay the environment below `root`."""
    home = root / package.home
    site = home / f"lib/python{PYTHON}/site-packages"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-compile",
    ]
    pip += ["--target", str(site), "--only-binary=:all:", "--implementation", "cp", "--python-version", PYTHON]
    pip += [word for one in PLATFORMS[arch] for word in ("--platform", one)]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        # pip judges markers by the machine that it runs on: what is for another kind of machine was chosen above.
        file.write(re.sub(r" ;[^\\\n]*", "", requirements))
        file.write(f"{wheel} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n")
        file.flush()
        _run([*pip, "--require-hashes", "-r", file.name])
    (home / "bin").mkdir()
    (home / "bin/python3").symlink_to("/usr/bin/python3")
    (home / "pyvenv.cfg").write_text(f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {PYTHON}\n")
    for name in package.programs:
        place = home / "bin" / name
        shutil.move(site / "bin" / name, place)
        content = place.read_bytes()
        if content.startswith(b"#!"):
            place.write_bytes(f"#!/{package.home}/bin/python3\n".encode() + content.partition(b"\n")[2])
        place.chmod(0o755)
    shutil.rmtree(site / "bin")
    for record in site.glob("*.dist-info"):  # what says where and how it was put here
        for name in ("RECORD", "direct_url.json", "REQUESTED", "INSTALLER"):
            (record / name).unlink(missing_ok=True)
    for path in site.rglob("*"):
        if path.is_dir() and path.name == "__pycache__":
            shutil.rmtree(path)


def documents(package: Package, root: Path, bill: bytes | None, at: int, version: str) -> None:
    """Lay manual pages, what changed, licences, and what lintian is told."""
    about = root / "usr/share/doc" / package.name
    about.mkdir(parents=True)
    (about / "copyright").write_text(LICENCE)
    day = format_datetime(datetime.fromtimestamp(at, UTC))
    entry = f"{package.name} ({version}) unstable; urgency=medium\n\n"
    entry += f"  * Release {version.partition('-')[0]}: see changelog.gz.\n\n -- {MAINTAINER}  {day}\n"
    _gzip(about / "changelog.Debian.gz", entry.encode())
    _gzip(about / "changelog.gz", (TOP / "CHANGELOG.md").read_bytes())
    if bill is not None:
        _gzip(about / "birthmark.cdx.json.gz", bill)
    if package.has_all_pages:
        (about / "examples").mkdir()
        shutil.copy(TOP / "src/birthmark/demo/apps/first_messages.py", about / "examples")
    man = root / "usr/share/man/man1"
    man.mkdir(parents=True)
    for name, text in pages(at).items():
        if name == "birthmark.1":
            (root / package.home / "share").mkdir()
            _gzip(root / package.home / "share/birthmark.1.gz", text.encode())
        elif (name == "birthmark-agent.1") != package.has_all_pages:
            _gzip(man / f"{name}.gz", text.encode())
    overrides = root / "usr/share/lintian/overrides"
    overrides.mkdir(parents=True)
    (overrides / package.name).write_text(OVERRIDES.format(name=package.name))


def control(package: Package, root: Path, arch: str, version: str) -> None:
    """Lay what dpkg reads."""
    debian = root / "DEBIAN"
    debian.mkdir()
    files = sorted(
        path for path in root.rglob("*") if path.is_file() and not path.is_symlink() and debian not in path.parents
    )
    size = sum(max(4096, path.stat().st_size) for path in files) // 1024
    depends = f"python3 (>= {PYTHON}~), python3 (<< {PYTHON[:2]}{int(PYTHON[2:]) + 1}~), libc6 (>= 2.28), libstdc++6"
    depends += ", adduser, init-system-helpers (>= 1.54~)"
    fields = {
        "Package": package.name,
        "Version": version,
        "Architecture": arch,
        "Maintainer": MAINTAINER,
        "Installed-Size": str(size),
        "Depends": depends,
        "Recommends": "ca-certificates",
        **package.fields,
        "Section": "net",
        "Priority": "optional",
        **({"Homepage": HOMEPAGE} if HOMEPAGE else {}),
        "Description": f"{package.short}\n {package.long}",
    }
    (debian / "control").write_text("".join(f"{name}: {value}\n" for name, value in fields.items()))
    (debian / "conffiles").write_text("".join(f"/{name}\n" for name in sorted(package.etc)))
    sums = [f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(root)}\n" for path in files]
    (debian / "md5sums").write_text("".join(one for one in sums if "  etc/" not in one))
    for name in ("postinst", "prerm", "postrm"):
        shutil.copy(SCRIPTS / f"{package.name}.{name}", debian / name)


def build(package: Package, out: Path, wheel: Path, arch: str, at: int) -> Path:
    """Build one package; return it."""
    version = f"{wheel.name.split('-')[1]}-1"
    requirements = chosen(PROJECT, (TOP / "requirements.lock").read_text(), package.extra)
    bill = next(iter(wheel.parent.glob("*.cdx.json")), None)
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "root"
        environment(package, root, wheel, requirements, arch)
        documents(package, root, None if bill is None else bill.read_bytes(), at, version)
        for name, text in {**package.etc, f"usr/lib/systemd/system/{package.unit}.service": package.unit_text}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        _settle(root)
        control(package, root, arch, version)
        _settle(root / "DEBIAN")
        for name in ("postinst", "prerm", "postrm"):
            (root / "DEBIAN" / name).chmod(0o755)
        root.chmod(0o755)
        made = out / f"{package.name}_{version}_{arch}.deb"
        variables = {**os.environ, "SOURCE_DATE_EPOCH": str(at)}
        _run(["dpkg-deb", "--root-owner-group", "-Zxz", "-z2", "--build", str(root), str(made)], variables)
    return made


def _settle(root: Path) -> None:
    """Give everything the modes that it shall have, whatever this machine's umask is."""
    for path in (root, *root.rglob("*")):
        if not path.is_symlink():
            is_program = path.is_dir() or path.parent.name == "bin"
            path.chmod(0o755 if is_program else 0o644)


def _gzip(path: Path, content: bytes) -> None:
    path.write_bytes(gzip.compress(content, 9, mtime=0))


def _run(command: list[str], variables: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheel", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=TOP / "dist")
    parser.add_argument("--arch", choices=sorted(PLATFORMS), default="amd64")
    parser.add_argument("--at", type=int, help="seconds since 1970 (default: the time of the commit)")
    parser.add_argument("--only", choices=[one.name for one in PACKAGES])
    given = parser.parse_args()
    at = commit_of(TOP)[1] if given.at is None else given.at
    for package in (one for one in PACKAGES if given.only in {None, one.name}):
        print(build(package, given.out, given.wheel.resolve(), given.arch, at), flush=True)


if __name__ == "__main__":
    main()
