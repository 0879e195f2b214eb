"""Two PostgreSQL servers of which one follows the other: a commit is answered when both have it."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from support.server.servers import free_address
from support.services.postgres import free_port

_BINARIES = Path("/usr/lib/postgresql")
_SETTINGS = ("wal_level=replica", "max_wal_senders=8", "hot_standby=on", "wal_log_hints=on", "wal_keep_size=64MB")
_PATIENCE_S = 30
_SMALL = ("max_wal_size=96MB", "min_wal_size=32MB")
_ROOM = "600m"


class Member:
    """One of the two, with its own directory and place."""

    def __init__(self, home: Path) -> None:
        self.data, self._log = home / "data", home / "log"
        self.address = free_address()
        self.port = free_port(self.address)
        self._home = home

    @property
    def place(self) -> str:
        return f"{self.address}:{self.port}"

    def start(self) -> None:
        options = f"-c listen_addresses={self.address} -p {self.port} -k {self._home}"
        self.run("pg_ctl", "-D", str(self.data), "-l", str(self._log), "-w", "-o", options, "start")

    def kill(self) -> None:
        """End every process of it, as a machine without power does."""
        first = int((self.data / "postmaster.pid").read_text().split()[0])
        below = subprocess.run(["pgrep", "-P", str(first)], capture_output=True, text=True, check=False).stdout.split()
        for pid in (first, *map(int, below)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for left in (self.data / "postmaster.pid", *self._home.glob(".s.PGSQL.*")):
            left.unlink(missing_ok=True)

    def stop(self) -> None:
        with contextlib.suppress(AssertionError):
            self.run("pg_ctl", "-D", str(self.data), "-m", "immediate", "stop")

    @contextlib.contextmanager
    def own_disk(self) -> Iterator[None]:
        """Have it on a disk that is small enough to be filled. Only root may."""
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_ROOM}", "tmpfs", self._home], check=True)
        _hand_over(self._home)
        try:
            yield
        finally:
            self.stop()
            subprocess.run(["umount", "--lazy", self._home], check=True)

    def fill(self, seconds: float) -> None:
        """Leave no room on its disk for so long, whatever becomes free meanwhile; start it again if that ended it."""
        until, ballast = time.monotonic() + seconds, self._home / "ballast"
        with ballast.open("wb") as file:
            while time.monotonic() < until:
                room = os.statvfs(self._home)
                if free := room.f_bavail * room.f_frsize:
                    with contextlib.suppress(OSError):  # somebody else was faster
                        os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, free)
                time.sleep(0.05)
        ballast.unlink()
        until = time.monotonic() + _PATIENCE_S
        while True:
            with contextlib.suppress(AssertionError):
                self.ask("SELECT 1")
                return
            assert time.monotonic() < until, "it does not come back"
            with contextlib.suppress(AssertionError):  # it runs, and is not ready yet
                self.start()
            time.sleep(0.2)

    def ask(self, sql: str) -> str:
        url = f"postgresql://birthmark@{self.place}/postgres"
        return self.run("psql", "--no-psqlrc", "--tuples-only", "--no-align", "--command", sql, url).strip()

    def run(self, program: str, *arguments: str) -> str:
        as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        command = [*as_user, str(max(_BINARIES.glob("*/bin")) / program), *arguments]
        # Into a file: the server that `pg_ctl` starts would keep a pipe open.
        with tempfile.TemporaryFile("w+") as out:
            done = subprocess.run(command, check=False, cwd=self._home, stdout=out, stderr=subprocess.STDOUT)
            out.seek(0)
            told = out.read()
        assert done.returncode == 0, f"{program}: {told}{self._log.read_text() if self._log.exists() else ''}"
        return told


class Pair:
    """A primary, and the standby that confirms each of its commits."""

    def __init__(self, home: Path, *, is_small: bool = False) -> None:
        self._settings = (*_SETTINGS, *(_SMALL if is_small else ()))
        self._members = [Member(_folder(home / name)) for name in ("one", "two")]
        self.primary, self.standby = self._members

    @property
    def url(self) -> str:
        """Both, of which the one is meant that may be written."""
        places = ",".join(one.place for one in self._members)
        return f"postgresql://birthmark@{places}/postgres?target_session_attrs=read-write"

    def begin(self) -> None:
        primary = self.primary
        primary.run("initdb", "-D", str(primary.data), "-A", "trust", "-U", "birthmark", "--no-sync")
        with (primary.data / "pg_hba.conf").open("a") as rules:
            rules.write("host replication all 127.0.0.0/8 trust\nhost all all 127.0.0.0/8 trust\n")
        with (primary.data / "postgresql.conf").open("a") as configuration:
            configuration.writelines(f"{one}\n" for one in self._settings)
        primary.start()
        self._follow()

    def fail_over(self) -> None:
        """Kill the primary, make the standby one that may be written, and have another standby follow it."""
        self.primary.kill()
        self.primary, self.standby = self.standby, self.primary
        self.primary.ask("SELECT pg_promote()")
        self.primary.ask("ALTER SYSTEM SET synchronous_standby_names = ''")  # nobody follows it yet
        self.primary.ask("SELECT pg_reload_conf()")
        shutil.rmtree(self.standby.data)
        self._follow()

    def _follow(self) -> None:
        """Copy the primary, let the copy follow it, and have commits wait for it from then on."""
        primary, standby = self.primary, self.standby
        source = f"host={primary.address} port={primary.port} user=birthmark application_name=follower"
        standby.run("pg_basebackup", "-D", str(standby.data), "-R", "-X", "stream", "--checkpoint=fast", "-d", source)
        standby.start()
        primary.ask("ALTER SYSTEM SET synchronous_standby_names = 'follower'")
        primary.ask("SELECT pg_reload_conf()")
        deadline = time.monotonic() + _PATIENCE_S
        while "sync" not in primary.ask("SELECT sync_state FROM pg_stat_replication").split():
            assert time.monotonic() < deadline, "nobody follows"
            time.sleep(0.1)

    @property
    def members(self) -> list[Member]:
        return self._members

    def stop(self) -> None:
        for one in self._members:
            one.stop()


def _folder(path: Path) -> Path:
    path.mkdir(mode=0o700)
    _hand_over(path)
    return path


def _hand_over(path: Path) -> None:
    path.chmod(0o700)
    if os.geteuid() == 0:
        os.chown(path, pwd.getpwnam("postgres").pw_uid, pwd.getpwnam("postgres").pw_gid)


@contextlib.contextmanager
def a_pair(*, is_small: bool = False) -> Iterator[Pair]:
    """Run both; `is_small`: each on a disk of its own that can be filled, for which one has to be root."""
    home = Path(tempfile.mkdtemp(prefix="birthmark-pair-"))
    home.chmod(0o755)
    pair = Pair(home, is_small=is_small)
    try:
        with contextlib.ExitStack() as disks:
            for one in pair.members if is_small else ():
                disks.enter_context(one.own_disk())
            pair.begin()
            yield pair
    finally:
        pair.stop()
        shutil.rmtree(home, ignore_errors=True)
