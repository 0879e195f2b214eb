"""The services: installed into an image, judged by systemd's own tools, and taken back exactly."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from birthmark.agent.state_directory import write_file
from support.server.servers import BIRTHMARK, clean_environment

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd's tools are not here"),
    pytest.mark.skipif(os.geteuid() != 0, reason="an image belongs to root"),
]
PROGRAM = "/usr/bin/birthmark"
ABOUT = pytest.mark.parametrize("which", ["agent", "server"])


@pytest.fixture
def image(tmp_path: Path) -> Path:
    root = tmp_path / "image"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    return root


def do(image: Path, *arguments: str) -> list[str]:
    program = ["--program", PROGRAM] if arguments[1] == "install" and "--program" not in arguments else []
    command = [BIRTHMARK, *arguments, *program, "--root", str(image), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=clean_environment(), timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["step"] for line in done.stdout.splitlines()]


def tree(image: Path) -> dict[str, tuple[int, bytes]]:
    """Every file with mode and content, but for the copies that the tools for users leave."""
    found = {}
    for path in sorted(image.rglob("*")):
        name = str(path.relative_to(image))
        if not name.endswith("-") and ".pwd.lock" not in name and "shadow" not in name:
            found[name] = (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
    return found


def but_for_users(found: dict[str, tuple[int, bytes]]) -> dict[str, tuple[int, bytes]]:
    """What is there without the lists of users, who stay."""
    return {name: what for name, what in found.items() if name not in {"etc/passwd", "etc/group"}}


@ABOUT
def test_a_tree_without_users_gets_the_files_and_makes_the_user_at_its_first_start(tmp_path: Path, which: str) -> None:
    (tmp_path / "tree").mkdir()
    do(tmp_path / "tree", which, "install")
    assert (tmp_path / "tree/etc/systemd/system/multi-user.target.wants").is_dir()
    assert list((tmp_path / "tree/etc/sysusers.d").iterdir())
    do(tmp_path / "tree", which, "uninstall")
    assert list((tmp_path / "tree").iterdir()) == []


@ABOUT
def test_it_is_installed_once_and_taken_back_exactly(image: Path, which: str) -> None:
    before = tree(image)
    assert do(image, which, "install", "--dry-run")
    assert tree(image) == before
    assert do(image, which, "install")
    assert f"birthmark-{which}.service" in str(sorted(tree(image)))
    assert do(image, which, "install") == []
    user = "birthmark-agent" if which == "agent" else "birthmark"
    assert f"\n{user}:" in (image / "etc/passwd").read_text()
    do(image, which, "uninstall")
    assert but_for_users(tree(image)) == but_for_users(before)
    assert do(image, which, "uninstall") == []


def test_the_agents_user_may_open_a_tpm_where_the_machine_has_a_group_for_that(image: Path) -> None:
    group = image / "etc/group"
    group.write_text(group.read_text() + "tss:x:108:\n")
    before = tree(image)
    do(image, "agent", "install")
    assert "tss:x:108:birthmark-agent" in group.read_text().splitlines()
    do(image, "agent", "uninstall")
    assert but_for_users(tree(image)) == but_for_users(before)


@ABOUT
def test_what_somebody_changed_or_put_there_stays(image: Path, which: str) -> None:
    do(image, which, "install")
    unit = image / f"etc/systemd/system/birthmark-{which}.service"
    unit.write_text(unit.read_text() + "# mine\n")
    state = image / ("var/lib/aziot/certd/certs/device.cer" if which == "agent" else "var/lib/birthmark/ca.pem")
    state.write_text("kept")
    steps = do(image, which, "uninstall")
    assert any("which was changed since" in step for step in steps)
    assert unit.exists()
    assert state.exists()


def id_of(image: Path, user: str) -> int:
    (line,) = [one for one in (image / "etc/passwd").read_text().splitlines() if one.startswith(f"{user}:")]
    return int(line.split(":")[2])


@ABOUT
def test_what_stays_is_the_next_system_user_s_never(image: Path, which: str) -> None:
    user = "birthmark-agent" if which == "agent" else "birthmark"
    do(image, which, "install")
    key = image / ("var/lib/aziot/keyd/keys/device.pem" if which == "agent" else "var/lib/birthmark/key.pem")
    key.write_text("secret")
    os.chown(key, id_of(image, user), id_of(image, user))
    assert [step for step in do(image, which, "uninstall") if step.startswith(f"keep the system user {user}")]
    (image / "grafana.conf").write_text("u grafana -\n")
    subprocess.run(["systemd-sysusers", "--root", str(image), str(image / "grafana.conf")], check=True, timeout=60)
    assert id_of(image, "grafana") != key.stat().st_uid == id_of(image, user)
    assert do(image, which, "uninstall") == []


@ABOUT
def test_a_unit_that_somebody_changed_is_kept_by_the_next_installation(image: Path, which: str) -> None:
    do(image, which, "install")
    unit = image / f"etc/systemd/system/birthmark-{which}.service"
    mine = unit.read_text() + "# mine\n"
    unit.write_text(mine)
    (said,) = do(image, which, "install", "--program", "/opt/birthmark/bin/birthmark")
    assert f"`systemctl edit birthmark-{which}` is for changes" in said
    assert unit.read_text() == mine


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ([], ""),
        (["--host", "cloud.example"], " --host cloud.example --listen 0.0.0.0"),
        (["--host", "localhost"], " --host localhost"),
        (["--host", "a.example", "--listen", "192.0.2.1"], " --host a.example --listen 192.0.2.1"),
        (["--host", "a.example", "--config", "/etc/birthmark.toml"], " --host a.example --config /etc/birthmark.toml"),
    ],
    ids=["no host", "a host", "this machine alone", "an address", "a configuration"],
)
def test_the_server_listens_where_its_name_is(image: Path, given: list[str], options: str) -> None:
    do(image, "server", "install", *given)
    unit = (image / "etc/systemd/system/birthmark-server.service").read_text()
    assert f"ExecStart={PROGRAM} serve --data /var/lib/birthmark{options}\n" in unit


@ABOUT
def test_a_program_that_the_service_would_not_see_is_refused(image: Path, which: str) -> None:
    command = [BIRTHMARK, which, "install", "--root", str(image), "--program", "/home/ann/venv/bin/birthmark"]
    refused = subprocess.run(command, capture_output=True, text=True, env=clean_environment(), check=False)
    assert (refused.returncode, "install.out_of_reach" in refused.stderr) == (1, True)
    assert not (image / "etc/systemd").exists()


@ABOUT
def test_the_unit_is_valid_and_hardened(image: Path, which: str) -> None:
    do(image, which, "install", "--program", "/bin/true")
    (image / "bin").mkdir()
    shutil.copy("/bin/true", image / "bin/true")
    unit = str(image / f"etc/systemd/system/birthmark-{which}.service")
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    assert f"birthmark-{which}.service:" not in verified.stderr, verified.stderr
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert judged.returncode == 0, judged.stdout[-600:] + judged.stderr


def test_the_agent_may_read_its_configuration_and_nobody_else(image: Path) -> None:
    config = image / "etc/aziot/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("")
    do(image, "agent", "install")
    assert config.stat().st_mode & 0o777 == 0o640
    (entry,) = [line for line in (image / "etc/group").read_text().splitlines() if line.startswith("birthmark-agent:")]
    assert config.stat().st_gid == int(entry.split(":")[2])


def test_what_root_applies_belongs_to_the_service(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12345)
    write_file(tmp_path / "key", b"secret")
    found = (tmp_path / "key").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (12345, 12345, 0o600)
