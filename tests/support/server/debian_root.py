"""A fresh Debian 12 in a directory, with a network of its own: what a package is installed into as its reader would."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

MISSING = [tool for tool in ("mmdebstrap", "ip", "unshare", "chroot") if shutil.which(tool) is None]
"""What is not on this machine and is needed."""
NOT_COMMITTED = "# not committed\n"
"""What is written into the files of a repository of which packages are built: none has it."""
USER = "birthmark"


def bootstrapped(directory: Path, *packages: str) -> Path:
    """Return a new minimal Debian 12; apt in it reaches what this machine's does."""
    root = directory / "root"
    include = [f"--include={','.join(packages)}"] if packages else []
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=minbase", *include, "bookworm", str(root)],
        check=True,
        capture_output=True,
        timeout=300,
    )
    for name in ("etc/resolv.conf", "etc/hosts"):
        shutil.copy(f"/{name}", root / name)
    (root / "etc/dpkg/dpkg.cfg.d/fast").write_text("force-unsafe-io\n")  # nobody needs it after a power cut
    return root


@dataclass(frozen=True, slots=True)
class DebianRoot:
    """The directory, and the network whose loopback its server has for itself."""

    path: Path
    network: str

    def apt(self, *arguments: str) -> str:
        """Run apt-get with this machine's network, and return what it said; nobody is asked."""
        quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-y", "-q", "--no-install-recommends"]
        return self._done([*self._inside(), *quiet, *arguments], timeout=300)

    def dpkg(self, *arguments: str) -> str:
        return self._done([*self._inside(), "dpkg", *arguments], timeout=300)

    def run(self, *command: str, user: str | None = USER) -> str:
        """Run a command in its network, and return what it printed."""
        return self._done([*self._connected(), *self._inside(user), *command], timeout=60)

    def attempt(self, *command: str, user: str | None = USER) -> subprocess.CompletedProcess[str]:
        """Run a command that may fail."""
        whole = [*self._connected(), *self._inside(user), *command]
        return subprocess.run(whole, capture_output=True, text=True, check=False, timeout=60)

    def beside(self, *command: str, environment: Mapping[str, str]) -> str:
        """Run a program of this machine in the root's network."""
        whole = [*self._connected(), *command]
        done = subprocess.run(whole, capture_output=True, text=True, check=False, timeout=60, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def serving(self, *command: str, is_closed: bool = False) -> Iterator[int]:
        """Run a server until it says that it is ready, yield its process, and end it at last.

        `is_closed`: as a container does it, with no capability and nothing to write but its data.
        """
        user = None if is_closed else USER
        if is_closed:
            mine = 'mount --bind /var/lib/birthmark /var/lib/birthmark; mount -o remount,bind,ro /; exec "$@"'
            drop = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--bounding-set=-all"]
            drop += ["--inh-caps=-all", "--no-new-privs", "env", "HOME=/var/lib/birthmark"]
            command = ("unshare", "--mount", "sh", "-c", mine, "sh", *drop, *command)
        log = self.path.parent / "serve.log"
        with log.open("w") as out:
            process = subprocess.Popen([*self._connected(), *self._inside(user), *command], stdout=out, stderr=out)
            try:
                deadline = time.monotonic() + 60
                while "Ready." not in log.read_text():
                    assert process.poll() is None, log.read_text()
                    assert time.monotonic() < deadline, log.read_text()
                    time.sleep(0.05)
                yield process.pid  # everything before the server became it
            finally:
                process.terminate()
                process.wait(timeout=60)

    def names(self) -> set[str]:
        """Return every file that has to do with this product, and every user and group."""
        files = {str(one.relative_to(self.path)) for one in self._files()}
        lists = {line for name in ("passwd", "group") for line in (self.path / "etc" / name).read_text().splitlines()}
        found = files | lists
        return {one for one in found if any(word in one for word in ("birthmark", "aziot"))}

    def _files(self) -> Iterator[Path]:
        for directory, directories, files in os.walk(self.path):
            here = Path(directory)
            if here == self.path:
                directories[:] = [name for name in directories if name not in {"proc", "sys", "dev", "given"}]
            yield from (here / name for name in (*directories, *files))

    def _inside(self, user: str | None = None) -> list[str]:
        who = [] if user is None else [f"--userspec={user}:{user}"]
        home = "/var/lib/birthmark" if user else "/root"
        plain = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", f"HOME={home}", "LC_ALL=C.UTF-8"]
        mounted = 'mount --bind "$0" "$0"; mount -t proc proc "$0/proc"; mount --rbind /dev "$0/dev"; exec chroot "$@"'
        return ["unshare", "--mount", "sh", "-c", mounted, str(self.path), *who, str(self.path), *plain]

    def _connected(self) -> list[str]:
        return ["ip", "netns", "exec", self.network]

    @staticmethod
    def _done(command: list[str], timeout: float) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@contextmanager
def booted(root: Path, log: Path) -> Iterator[list[str]]:
    """Boot a root that has systemd, with this machine's network; yield the words before a command in it."""
    boot = ["systemd-nspawn", "--quiet", "--directory", str(root), "--boot", "--register=no", "--keep-unit"]
    with log.open("w") as out:
        words = [*boot, "--resolv-conf=off", "--console=pipe"]
        nspawn = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        children = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children")
        deadline = time.monotonic() + 60
        while True:
            assert nspawn.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
            first = next(iter(children.read_text().split()), "0")
            enter = ["nsenter", "--target", first, "--mount", "--uts", "--ipc", "--pid", "--cgroup"]
            asked = [*enter, "systemctl", "is-system-running"]
            with suppress(subprocess.TimeoutExpired):  # one that came before the system's bus waits for ever
                state = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=5)
                if first != "0" and state.stdout.strip() in {"running", "degraded"}:
                    break
        yield enter
    finally:
        for _ in range(2):  # the second does not wait for anybody
            nspawn.terminate()
            time.sleep(0.2)
        with suppress(subprocess.TimeoutExpired):
            nspawn.wait(30)
        nspawn.kill()
        nspawn.wait()


@contextmanager
def a_debian(directory: Path, *packages: str) -> Iterator[DebianRoot]:
    """Make a root with a network of its own, and take both away."""
    network = f"bm{os.getpid()}-{directory.name[-6:]}"
    root = bootstrapped(directory, *packages)
    subprocess.run(["ip", "netns", "add", network], check=True)
    try:
        subprocess.run(["ip", "-n", network, "link", "set", "lo", "up"], check=True)
        yield DebianRoot(root, network)
    finally:
        subprocess.run(["ip", "netns", "delete", network], check=True)
        shutil.rmtree(root, ignore_errors=True)
