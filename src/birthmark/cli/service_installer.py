"""Installs a service on a machine or into an image, and uninstalls exactly what it installed.

Each change is recorded in `var/lib/birthmark-install/NAME.json` before it is made, so that an interrupted run leaves
nothing unrecorded. A repeated installation changes only what differs. Uninstalling removes only what was installed. It
keeps files that were modified since, data, configuration, and the user that owns them.
"""

import contextlib
import hashlib
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec

from birthmark import atomic_files
from birthmark.cli.input_files import FileUnusableError
from birthmark.cli.systemd_units import SystemdService
from birthmark.untrusted_json_and_text import decode_json, reason_of


class InstallManifest(msgspec.Struct, frozen=True):
    """Record of an installation: files with their digests, a link, directories, the user."""

    files: dict[str, str] = {}
    before: dict[str, str] = {}
    """Digests of files before an update, which remain valid if the update was interrupted."""
    links: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    user: str | None = None
    settled: bool = False
    """Whether all files have their final owner and mode."""


@dataclass(frozen=True, slots=True)
class InstallStep:
    """An installation step with its description; `do` runs it."""

    what: str
    do: Callable[[], None] = field(repr=False)


@dataclass(slots=True)
class Installer:
    """Installs one service under a root directory; / is this machine."""

    service: SystemdService
    root: Path
    _made: InstallManifest = field(default_factory=InstallManifest)

    @property
    def record(self) -> Path:
        return self.root / "var/lib/birthmark-install" / f"{self.service.name}.json"

    @property
    def is_here(self) -> bool:
        return self.root == Path("/")

    # ---- install

    def install(self) -> Iterator[InstallStep]:
        """Yield the required steps; none if everything is up to date."""
        self._made = self._recorded()
        found = {name: _text(self.root / name) for name in self.service.files}
        different = [name for name, text in self.service.files.items() if found[name] != text]
        others = [name for name in different if not self._is_ours(name, found[name])]
        for name in others:
            way = f": `systemctl edit {self.service.name}` is for changes" if name.endswith(".service") else ""
            yield InstallStep(f"keep /{name}, which was changed after its installation{way}", _nothing)
        different = [name for name in different if name not in others]
        for name in different:
            yield InstallStep(f"write /{name}", self._writer(name, self.service.files[name]))
        has_users = (self.root / "etc/passwd").exists()  # otherwise the image's first start creates them
        if not self._has_user() and has_users:
            yield InstallStep(f"create the system user {self.service.user}", self._make_user)
        missing = [name for name in self.service.directories if not (self.root / name).is_dir()]
        for name in missing:
            yield InstallStep(f"make /{name}", partial(self._make_directory, name))
        was_cut_off = self.record.exists() and not self._made.settled
        if (different or missing or was_cut_off) and has_users:
            for step in self._tool("systemd-tmpfiles", "--create", self._place("tmpfiles.d")):
                yield InstallStep(step.what, partial(self._settle, step.do))
        wants = self.root / self.service.wants
        if not wants.is_symlink():
            yield InstallStep(f"enable it at boot: /{self.service.wants}", self._enable)
        if self.is_here and different:
            yield from self._systemctl("daemon-reload")

    def uninstall(self) -> Iterator[InstallStep]:
        """Yield the steps that undo the installation."""
        made = self._made = self._recorded()
        unit = f"etc/systemd/system/{self.service.name}.service"
        if self.is_here and made.files and (self.root / unit).exists():  # otherwise stopped before the removal
            yield from self._systemctl("stop", f"{self.service.name}.service")
        yield from self._files_back(made)
        if made.user is not None and self._has_user():
            why = "because a new user could get its UID and its files"
            yield InstallStep(f"keep the system user {made.user}, {why}", _nothing)
        if self.record.exists():
            yield InstallStep("forget the installation", self._forget)
        for name in reversed(made.directories):
            yield InstallStep(f"remove /{name}, if it is empty", partial(_rmdir, self.root / name))
        if self.is_here and made.files:
            yield from self._systemctl("daemon-reload")

    # ---- inside

    def _is_ours(self, name: str, text: str | None) -> bool:
        """Return whether a file is missing, or unchanged since it was installed."""
        return text is None or _is_one(self._made, name, text)

    def _files_back(self, manifest: InstallManifest) -> Iterator[InstallStep]:
        for name in manifest.links:
            if (self.root / name).is_symlink():
                yield InstallStep(f"remove /{name}", partial(_remove, self.root / name))
        for name in manifest.files:
            found = _text(self.root / name)
            if found is not None and _is_one(manifest, name, found):
                yield InstallStep(f"remove /{name}", partial(_remove, self.root / name))
            elif found is not None:
                yield InstallStep(f"leave /{name}, which was changed since", _nothing)

    def _recorded(self) -> InstallManifest:
        """Return the installation record; empty without a file.

        Raise `FileUnusableError` for an unreadable record.
        """
        try:
            return decode_json(self.record.read_bytes(), InstallManifest)
        except FileNotFoundError:
            return InstallManifest()
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            lost = FileUnusableError(path=str(self.record), reason="the installation method is unknown")
            there = shlex.join(str(self.root / name) for name in (*self.service.files, self.service.wants))
            stop = f"systemctl stop {self.service.name}.service; " if self.is_here else ""
            lost.quote(
                fix=f"Remove it manually: `{stop}rm -f {shlex.quote(str(self.record))} {there}`; then install again."
            )
            raise lost from error

    def _remember(self, **changes: object) -> None:
        """Record the next change before it is made."""
        self._made = msgspec.structs.replace(self._made, **changes)
        self._make(self._missing(self.record.parent))
        atomic_files.replace(self.record, msgspec.json.encode(self._made), mode=0o644)

    def _directories(self, directory: Path) -> None:
        """Create directories, and record the new ones."""
        if missing := self._missing(directory):
            self._remember()
            self._make(missing)

    def _missing(self, directory: Path) -> list[Path]:
        """Return the missing directories, topmost first, and record them as created."""
        missing: list[Path] = []
        while not directory.exists():
            missing.insert(0, directory)
            directory = directory.parent
        names = [str(one.relative_to(self.root)) for one in missing]
        known = dict.fromkeys((*self._made.directories, *names))
        self._made = msgspec.structs.replace(self._made, directories=tuple(known))
        return missing

    def _make(self, missing: list[Path]) -> None:
        for one in missing:
            one.mkdir(mode=0o755, exist_ok=True)  # the record's may exist by now

    def _writer(self, name: str, text: str) -> Callable[[], None]:
        def write() -> None:
            path, before = self.root / name, _text(self.root / name)
            self._directories(path.parent)
            earlier = {} if before is None else {name: _digest(before)}
            known = self._made.files | {name: _digest(text)}
            self._remember(files=known, before=self._made.before | earlier, settled=False)
            atomic_files.replace(path, text.encode(), mode=0o644)

        return write

    def _has_user(self) -> bool:
        users = (_text(self.root / "etc/passwd") or "").splitlines()
        return any(line.startswith(f"{self.service.user}:") for line in users)

    def _make_directory(self, name: str) -> None:
        self._directories(self.root / name)
        self._remember(settled=False)

    def _settle(self, do: Callable[[], None]) -> None:
        """Set owner and mode of everything, and record it; the next run completes an interrupted one."""
        do()
        self._remember(settled=True)

    def _make_user(self) -> None:
        self._remember(user=self.service.user)
        for step in self._tool("systemd-sysusers", self._place("sysusers.d")):
            step.do()
        if not self._has_user():
            self._remember(user=None)

    def _enable(self) -> None:
        link = self.root / self.service.wants
        self._directories(link.parent)
        self._remember(links=(*(one for one in self._made.links if one != self.service.wants), self.service.wants))
        link.symlink_to(f"/etc/systemd/system/{self.service.name}.service")
        atomic_files.sync_directory(link.parent)

    def _forget(self) -> None:
        _remove(self.record)
        _rmdir(self.record.parent)

    def _place(self, directory: str) -> str:
        return str(self.root / f"etc/{directory}/{self.service.name}.conf")

    def _tool(self, tool: str, *arguments: str) -> Iterator[InstallStep]:
        """Yield a function that runs a tool on an image. Without the tool, the image does this at first boot."""
        if (path := shutil.which(tool, path="/usr/sbin:/usr/bin:/sbin:/bin")) is None:
            return
        roots = [] if self.is_here else ["--root", str(self.root)]
        command = [path, *roots, *arguments]
        yield InstallStep(" ".join(command), partial(_run, command))

    def _systemctl(self, *arguments: str) -> Iterator[InstallStep]:
        if Path("/run/systemd/system").is_dir():  # systemd manages this machine
            yield InstallStep(f"systemctl {' '.join(arguments)}", partial(_run, ["systemctl", *arguments]))


def _is_one(manifest: InstallManifest, name: str, text: str) -> bool:
    """Return whether a file has content that was installed, now or before."""
    return _digest(text) in {manifest.files.get(name), manifest.before.get(name)}


def _nothing() -> None:
    """Do nothing: the step only prints a message."""


def groups_of(root: Path) -> set[str]:
    """Return the names of the groups of a machine or image."""
    return {line.partition(":")[0] for line in (_text(root / "etc/group") or "").splitlines()}


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (tools by absolute paths)
    if done.returncode:
        raise FileUnusableError(path=command[-1], reason=" ".join(done.stderr.split()) or f"{command[0]} failed")


def _text(path: Path) -> str | None:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8")
    return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise FileUnusableError(path=str(path), reason=reason_of(error)) from error


def _rmdir(path: Path) -> None:
    with contextlib.suppress(OSError):  # not empty: foreign files
        path.rmdir()
