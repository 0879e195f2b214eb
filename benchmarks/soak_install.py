"""From nothing to the first message of the unmodified SDKs of Azure and AWS, by each way of docs/howto/install.md.

python benchmarks/soak_install.py [pip] [deb] [container] [--again]

Types the lines of the page's section "The first message" into a shell, in a fresh Debian 12 that systemd has booted
(systemd-nspawn), as a user who is not root; the container's on this machine. Prints what each line took. Takes
wheel and package from dist/ (scripts/package --deb amd64). `--again` does it twice in one Debian, the second time with
what pip and apt have kept. What this machine alone needs is laid beside: roots for pip, runc and limits for podman.
"""

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP / "tests"))
from support.server.debian_root import booted  # noqa: E402 - of the tests

PAGE = TOP / "docs/howto/install.md"
USER = "ada"
ROOTS = "/etc/ssl/certs/ca-certificates.crt"
CERT = os.environ.get("PIP_CERT", ROOTS)
BY = {"pip": "With pip", "deb": "With the package", "container": "With the container file"}
MOST_COMMANDS, MOST_S = 5, 120.0


def lines_of(way: str) -> list[str]:
    """Return the lines that the page has its reader type."""
    section = PAGE.read_text().partition("\n## The first message\n")[2].partition("\n## ")[0]
    block = re.search(rf"^{BY[way]}(?:.+\n)+\n((?:    .+\n)+)", section, re.MULTILINE)
    assert block is not None, f"{PAGE} does not say how: {BY[way]}"
    return [line.strip() for line in block[1].splitlines()]


def script_of(lines: Sequence[str]) -> str:
    """Return a script that does the lines and says of each what it took; the first that fails ends it."""
    told = ["trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT", "began=$EPOCHREALTIME"]
    for line in lines:
        told.append(line)
        told.append('ended=$?; now=$EPOCHREALTIME; echo "## $ended $began $now"; began=$now; [ $ended = 0 ] || exit 1')
    return "\n".join([*told, "kill $(jobs -p) 2>/dev/null; wait", ""])


@contextmanager
def a_booted(directory: Path) -> Iterator[tuple[Path, list[str]]]:
    """Boot a fresh Debian 12; yield where it is, and the words before a command in it."""
    root = directory / "root"
    include = "--include=systemd-sysv,dbus,sudo,ca-certificates"
    subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", include, "bookworm", str(root)], check=True)
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    (root / "etc/hosts").write_text(
        f"127.0.0.1 localhost {socket.gethostname()}\n"
    )  # as an installation of Debian has it
    subprocess.run(["chroot", str(root), "useradd", "--create-home", "--shell", "/bin/bash", USER], check=True)
    (root / "etc/sudoers.d/ada").write_text(f"{USER} ALL=(ALL) NOPASSWD: ALL\n")
    shutil.copy(CERT, root / "etc/ssl/certs/of-this-machine.crt")
    (root / "etc/pip.conf").write_text("[global]\ncert = /etc/ssl/certs/of-this-machine.crt\n")
    for file in (TOP / "dist").iterdir():
        if file.suffix in {".whl", ".deb"}:
            shutil.copy(file, root / "home" / USER)
    with booted(root, directory / "boot.log") as enter:
        yield root, enter


def type_into(
    command: Sequence[str], lines: Sequence[str], place: Path, environment: dict[str, str] | None
) -> list[float]:
    """Do the lines in a shell, and return how many seconds each took."""
    place.write_text(script_of(lines))
    place.chmod(0o755)
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=900, env=environment
    )
    took = [float(end) - float(begin) for begin, end in re.findall(r"^## 0 (\S+) (\S+)$", done.stdout, re.MULTILINE)]
    if len(took) < len(lines):
        sys.exit(f"{lines[len(took)]}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return took


def in_debian(way: str, times: int) -> Iterator[tuple[str, list[float]]]:
    """Do it in a Debian of its own."""
    with tempfile.TemporaryDirectory(prefix="birthmark-install-") as name, a_booted(Path(name)) as (root, enter):
        for time_ in range(times):
            shell = [*enter, "su", "--login", USER, "--command", "bash ./lines"]
            yield ("", "again")[time_], type_into(shell, lines_of(way), root / "home" / USER / "lines", None)
            if way == "deb":
                subprocess.run([*enter, "apt-get", "purge", "-y", "-q", "birthmark"], check=True, capture_output=True)
            shutil.rmtree(root / "home" / USER / "environment")


def on_this_machine(times: int) -> Iterator[tuple[str, list[float]]]:
    """Do it with podman here, in a copy of the checkout."""
    with tempfile.TemporaryDirectory(prefix="birthmark-install-") as name:
        here = Path(name) / "checkout"
        subprocess.run(["git", "clone", "--quiet", str(TOP), str(here)], check=True)
        shutil.copytree(TOP / "dist", here / "dist", ignore=shutil.ignore_patterns("root.tar"))
        conf = Path(name) / "containers.conf"
        limits = '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
        conf.write_text(f'{limits}[engine]\nruntime = "runc"\n')
        kept = {"PATH", "HOME", "PIP_CERT", "PIP_DEFAULT_TIMEOUT"}
        mine = {name: value for name, value in os.environ.items() if name in kept} | {"CONTAINERS_CONF": str(conf)}
        for time_ in range(times):
            try:
                shell = ["bash", "-c", f"cd {here} && exec bash ./lines"]
                yield ("", "again")[time_], type_into(shell, lines_of("container"), here / "lines", mine)
            finally:
                for words in (["rm", "--force", "--time", "5", "birthmark"], ["volume", "rm", "birthmark"]):
                    subprocess.run(["podman", *words], env=mine, capture_output=True, check=False)
                shutil.rmtree(here / "environment", ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ways", nargs="*", choices=[*BY, []], default=list(BY))
    parser.add_argument("--again", action="store_true", help="twice each")
    given = parser.parse_args()
    too_much = []
    for way in given.ways or list(BY):
        times = 1 + given.again
        for note, took in on_this_machine(times) if way == "container" else in_debian(way, times):
            for line, seconds in zip(lines_of(way), took, strict=True):
                print(f"  {seconds:6.1f} s  {line}")
            print(f"{way} {note}: {len(took)} commands, {sum(took):.0f} s", flush=True)
            if len(took) > MOST_COMMANDS or sum(took) > MOST_S:
                too_much.append(way)
    if too_much:
        sys.exit(f"More than {MOST_COMMANDS} commands or {MOST_S:.0f} s: {', '.join(too_much)}")


if __name__ == "__main__":
    main()
