"""Installing as who may not, and being killed meanwhile."""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from birthmark import atomic_files
from birthmark.cli import service_install
from birthmark.cli.input_files import FileUnusableError
from birthmark.cli.service_installer import Installer, InstallManifest, InstallStep
from birthmark.cli.systemd_units import SystemdService, agent_service


@pytest.mark.parametrize(
    ("sudo", "typed"),
    [
        ("/usr/bin/sudo", "sudo /opt/birthmark/bin/birthmark agent install"),
        (None, "su -c '/opt/birthmark/bin/birthmark agent install'"),
    ],
)
def test_who_is_not_root_is_told_to_do_it_as_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sudo: str | None, typed: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("shutil.which", lambda name: sudo if name == "sudo" else None)
    monkeypatch.setattr("sys.argv", ["/opt/birthmark/bin/birthmark", "agent", "install"])

    def forbidden() -> None:
        raise PermissionError(13, "Permission denied", "/etc/systemd/system/birthmark-agent.service")

    def plan(_installer: Installer) -> Iterator[InstallStep]:
        yield InstallStep("write it", forbidden)

    with pytest.raises(FileUnusableError) as refused:
        service_install._do(agent_service("birthmark", ()), tmp_path, plan, dry_run=False, as_json=True)
    assert refused.value.explain_fix() == f"Do it as root: `{typed}`"


class KilledError(BaseException):
    """The end of the process, wherever it is."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "var/lib").mkdir(parents=True)
    return tmp_path


def every_step(plan: Iterator[InstallStep]) -> None:
    for step in plan:
        step.do()


def names_in(root: Path) -> set[str]:
    return {str(one.relative_to(root)) for one in root.rglob("*")}


def a_service(program: str = "/usr/bin/birthmark") -> SystemdService:
    return agent_service(program, ())


def kill_at(monkeypatch: pytest.MonkeyPatch, count: int, *, is_done: bool) -> list[str]:
    """End the process at the `count`th change of the disk, before it or just after; return what was changed."""
    changed: list[str] = []

    def killing(place: object, name: str) -> None:
        real = getattr(place, name)

        def act(*arguments: object, **options: object) -> object:
            changed.append(f"{name} {arguments[0]}")
            if len(changed) == count and not is_done:
                raise KilledError
            done = real(*arguments, **options)
            if len(changed) == count:
                raise KilledError
            return done

        monkeypatch.setattr(place, name, act)

    killing(atomic_files, "replace")
    killing(Path, "mkdir")
    killing(Path, "symlink_to")
    return changed


@pytest.mark.parametrize("is_done", [True, False])
@pytest.mark.parametrize("is_installed_before", [True, False])
def test_what_a_killed_installation_made_is_taken_back(
    root: Path, monkeypatch: pytest.MonkeyPatch, *, is_done: bool, is_installed_before: bool
) -> None:
    before = names_in(root)
    for count in itertools.count(1):
        if is_installed_before:
            every_step(Installer(a_service("/opt/earlier"), root).install())
        with monkeypatch.context() as patched:
            changed = kill_at(patched, count, is_done=is_done)
            with contextlib.suppress(KilledError):
                every_step(Installer(a_service(), root).install())
        every_step(Installer(a_service(), root).install())
        assert list(Installer(a_service(), root).install()) == []
        every_step(Installer(a_service(), root).uninstall())
        assert names_in(root) == before, changed
        if len(changed) < count:
            break
    assert {"replace", "mkdir", "symlink_to"} == {one.split()[0] for one in changed} or is_installed_before


def test_what_was_cut_off_before_it_had_its_owner_is_given_it_by_the_next_call(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "etc").mkdir()
    (root / "etc/passwd").write_text("birthmark-agent:x:990:990::/:/usr/sbin/nologin\n")
    given: list[str] = []

    def tool(_installer: Installer, name: str, *_arguments: str) -> Iterator[InstallStep]:
        def do() -> None:
            if not given and is_cut:
                raise KilledError
            given.append(name)

        yield InstallStep(name, do)

    monkeypatch.setattr(Installer, "_tool", tool)
    is_cut = True
    with contextlib.suppress(KilledError):
        every_step(Installer(a_service(), root).install())
    is_cut = False
    every_step(Installer(a_service(), root).install())
    assert given == ["systemd-tmpfiles"]
    assert list(Installer(a_service(), root).install()) == []


def test_a_service_whose_unit_is_gone_is_not_stopped(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be refused as not loaded, for good, where an uninstallation was cut off."""
    monkeypatch.setattr(Installer, "is_here", True)
    monkeypatch.setattr(
        Installer, "_systemctl", lambda _self, *words: iter([InstallStep(" ".join(words), lambda: None)])
    )
    every_step(Installer(a_service(), root).install())
    steps = [one.what for one in Installer(a_service(), root).uninstall()]
    assert steps[0] == "stop birthmark-agent.service"
    (root / "etc/systemd/system/birthmark-agent.service").unlink()
    assert not [one.what for one in Installer(a_service(), root).uninstall() if one.what.startswith("stop ")]


def test_a_file_that_somebody_changed_is_left(root: Path) -> None:
    every_step(Installer(a_service(), root).install())
    unit = root / "etc/systemd/system/birthmark-agent.service"
    unit.write_text("mine")
    every_step(Installer(a_service(), root).install())
    every_step(Installer(a_service(), root).uninstall())
    assert unit.read_text() == "mine"


@pytest.mark.parametrize("content", [b"", b"[]", b'{"files": 7}'])
@pytest.mark.parametrize("plan", [Installer.install, Installer.uninstall])
def test_a_record_that_cannot_be_read_is_refused_by_name(
    root: Path, content: bytes, plan: Callable[[Installer], Iterator[InstallStep]]
) -> None:
    every_step(Installer(a_service(), root).install())
    installer = Installer(a_service(), root)
    installer.record.write_bytes(content)
    before = names_in(root)
    with pytest.raises(FileUnusableError) as refused:
        every_step(plan(installer))
    assert str(installer.record) in refused.value.explain_cause()
    assert "birthmark-agent.service" in refused.value.explain_fix()
    assert names_in(root) == before


def a_user(root: Path, uid: int, gid: int) -> None:
    """Put the agent's user on the machine, as the installation makes it."""
    (root / "etc").mkdir(exist_ok=True)
    name, what = "birthmark-agent", "Birthmark agent"
    (root / "etc/passwd").write_text(f"{name}:x:{uid}:{gid}:{what}:/var/lib/aziot:/usr/sbin/nologin\n")
    installer = Installer(a_service(), root)
    made = msgspec.json.decode(installer.record.read_bytes(), type=InstallManifest)
    installer.record.write_bytes(msgspec.json.encode(msgspec.structs.replace(made, user=name)))


@pytest.mark.parametrize("is_linked", [False, True])
def test_a_user_stays_whatever_is_left_of_it(root: Path, is_linked: bool) -> None:
    every_step(Installer(a_service(), root).install())
    a_user(root, os.getuid(), os.getgid())
    if is_linked:  # to a place that no list of ours names
        (root / "srv").mkdir()
        (root / "var/lib/aziot").rename(root / "srv/aziot")
        (root / "var/lib/aziot").symlink_to("../../srv/aziot")
    said = []
    for step in Installer(a_service(), root).uninstall():
        step.do()
        said.append(step.what)
    assert not [one for one in said if "userdel" in one or "groupdel" in one]
    assert [
        one
        for one in said
        if one.startswith("keep the system user birthmark-agent, because a new user could get its UID")
    ]
    assert "birthmark-agent:" in (root / "etc/passwd").read_text()
