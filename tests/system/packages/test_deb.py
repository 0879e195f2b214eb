"""The packages for Debian 12, in a fresh one: installed, used, upgraded, removed and purged."""

import gzip
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from support.server import debian_root
from support.server.debian_root import NOT_COMMITTED, DebianRoot, a_debian
from support.server.earlier import unpacked

TOP = Path(__file__).parents[3]
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(bool(debian_root.MISSING), reason=f"not on this machine: {debian_root.MISSING}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a root belongs to root"),
]
SERVE = ("birthmark", "serve", "--data", "/var/lib/birthmark", "--config", "/etc/birthmark/server.toml")
AT_AZURE = """
import sys
from azure.iot.device import IoTHubDeviceClient
trust = open(sys.argv[2]).read()
client = IoTHubDeviceClient.create_from_connection_string(sys.argv[1], server_verification_cert=trust)
client.connect()
client.send_message(sys.argv[3])
client.shutdown()
"""
AT_AWS = """
import json, sys, boto3
from awscrt import mqtt
from awsiot import mqtt_connection_builder
iot = boto3.client("iot")
iot.create_thing(thingName="pump-2")
made = iot.create_keys_and_certificate(setAsActive=True)
allowed = {"Effect": "Allow", "Action": "iot:*", "Resource": "*"}
iot.create_policy(policyName="all", policyDocument=json.dumps({"Version": "2012-10-17", "Statement": [allowed]}))
iot.attach_policy(policyName="all", target=made["certificateArn"])
iot.attach_thing_principal(thingName="pump-2", principal=made["certificateArn"])
host, _, port = iot.describe_endpoint(endpointType="iot:Data-ATS")["endpointAddress"].partition(":")
connection = mqtt_connection_builder.mtls_from_bytes(
    made["certificatePem"].encode(), made["keyPair"]["PrivateKey"].encode(), client_id="pump-2", endpoint=host,
    port=int(port or 8883), ca_filepath=sys.argv[1],
)
connection.connect().result(20)
connection.publish("pumps/2", "hello", mqtt.QoS.AT_LEAST_ONCE)[0].result(20)
connection.disconnect().result(20)
print("acknowledged")
"""


@pytest.fixture(scope="module")
def debian() -> Iterator[DebianRoot]:
    with tempfile.TemporaryDirectory(prefix="birthmark-debian-") as directory, a_debian(Path(directory)) as root:
        root.apt("update")
        yield root


def given(debian: DebianRoot, package: Path) -> str:
    """Lay a file where the root sees it; return its name there."""
    (debian.path / "given").mkdir(exist_ok=True)
    shutil.copy(package, debian.path / "given")
    return f"/given/{package.name}"


def newer(package: Path, directory: Path) -> Path:
    """Return the same package with the next number."""
    subprocess.run(["dpkg-deb", "--raw-extract", str(package), str(directory / "raw")], check=True)
    control = directory / "raw/DEBIAN/control"
    control.write_text(control.read_text().replace("-1\n", "-2\n", 1))
    conffile = directory / "raw/etc/birthmark/server.toml"
    conffile.write_text(conffile.read_text() + "# a comment more\n")
    made = directory / package.name.replace("-1_", "-2_")
    subprocess.run(["dpkg-deb", "-Zgzip", "-z1", "--build", str(directory / "raw"), str(made)], check=True)
    shutil.rmtree(directory / "raw")
    return made


def program_of(debian: DebianRoot) -> str:
    """Say where /usr/bin/birthmark leads."""
    return str((debian.path / "etc/alternatives/birthmark").readlink())


def environment_at(debian: DebianRoot) -> dict[str, str]:
    """Return what clients need, for programs of this machine."""
    told = debian.run("birthmark", "env", "--format", "dotenv", "--data", "/var/lib/birthmark")
    here = dict(line.split("=", 1) for line in told.replace("/var/lib/", f"{debian.path}/var/lib/").splitlines())
    return {"PATH": os.environ["PATH"], "HOME": str(debian.path.parent), **here}


def rows(debian: DebianRoot, *arguments: str) -> list[dict[str, str]]:
    said = debian.run("birthmark", *arguments, "--data", "/var/lib/birthmark", "--json")
    return [json.loads(line) for line in said.splitlines()]


def send(debian: DebianRoot, text: str) -> None:
    """Have Azure's SDK send a message as pump-1."""
    (key,) = rows(debian, "hub", "device", "key", "pump-1")
    trust = debian.path / "var/lib/birthmark/trust.pem"
    words = [sys.executable, "-c", AT_AZURE, key["primary_connection_string"], str(trust), text]
    debian.beside(*words, environment=environment_at(debian))


def test_what_is_not_committed_is_in_no_package(packages: dict[str, Path], tmp_path: Path) -> None:
    subprocess.run(["dpkg-deb", "--raw-extract", str(packages["birthmark"]), str(tmp_path / "raw")], check=True)
    assert NOT_COMMITTED not in (tmp_path / "raw/DEBIAN/postinst").read_text()
    changes = gzip.decompress((tmp_path / "raw/usr/share/doc/birthmark/changelog.gz").read_bytes())
    assert NOT_COMMITTED.encode() not in changes


def test_from_nothing_to_the_first_message_of_both_clouds_sdks(debian: DebianRoot, packages: dict[str, Path]) -> None:
    debian.apt("install", given(debian, packages["birthmark"]))
    with debian.serving(*SERVE):
        rows(debian, "hub", "device", "create", "pump-1")
        send(debian, "hello")
        assert [row["body"] for row in rows(debian, "hub", "messages")] == ["hello"]
        trust = str(debian.path / "var/lib/birthmark/trust.pem")
        said = debian.beside(sys.executable, "-c", AT_AWS, trust, environment=environment_at(debian))
        assert said == "acknowledged\n"


def test_it_serves_with_no_capability_and_nothing_to_write_but_its_data(debian: DebianRoot) -> None:
    with debian.serving(*SERVE, is_closed=True) as process:
        status = Path(f"/proc/{process}/status").read_text()
        rights = {line.split()[1] for line in status.splitlines() if line.startswith("Cap")}
        assert rights == {"0" * 16}
        send(debian, "closed")


def test_nobody_else_on_the_machine_reads_what_the_server_has(debian: DebianRoot) -> None:
    modes = debian.run("stat", "-c", "%a %U", "/var/lib/birthmark", "/etc/birthmark/server.toml", user=None)
    assert modes.split("\n")[:2] == ["700 birthmark", "640 root"]


def test_who_is_no_root_and_has_no_sudo_is_told_what_to_type(debian: DebianRoot) -> None:
    debian.run("useradd", "--create-home", "ada", user=None)
    closed = debian.attempt("birthmark", "hub", "ls", "--data", "/var/lib/birthmark", user="ada")
    assert "su -c 'runuser -u birthmark -- /usr/bin/birthmark hub ls --data /var/lib/birthmark'" in closed.stderr
    refused = debian.attempt("birthmark", "server", "install", "--dry-run", user="ada")
    assert refused.returncode == 0, refused.stderr
    refused = debian.attempt("birthmark", "server", "install", user="ada")
    assert "su -c '/usr/bin/birthmark server install'" in refused.stderr


def test_without_a_network_who_is_away_is_named(debian: DebianRoot) -> None:
    away = debian.attempt("birthmark", "login", "https://cloud.example:9443")
    assert away.returncode == 5
    assert "login.server_away" in away.stderr
    assert "name resolution" in away.stderr


def test_a_proxy_is_not_asked_for_this_machine_and_is_blamed_where_it_was(debian: DebianRoot) -> None:
    proxied = ("env", "https_proxy=http://127.0.0.1:9", "no_proxy=.plant.example")
    here = ("--data", "/var/lib/birthmark")
    with debian.serving(*SERVE):
        told = debian.run(*proxied, "birthmark", "env", *here)
        assert "export no_proxy=.plant.example,localhost" in told.splitlines()
        refused = debian.attempt(*proxied, "birthmark", "device", "ls", *here)
        assert "fleet.target_unreachable" in refused.stderr
        assert "export no_proxy=.plant.example,localhost" in refused.stderr
        debian.run(*proxied, "no_proxy=.plant.example,localhost", "birthmark", "device", "ls", *here)


def test_a_home_that_is_closed_is_named_and_stops_nothing_else(debian: DebianRoot) -> None:
    refused = debian.attempt("birthmark", "serve", "--listen", "127.0.0.2", user="ada")  # HOME is the server's
    assert "Cannot write to the data directory /var/lib/birthmark/.local/share/birthmark" in refused.stderr
    assert 'birthmark serve --listen 127.0.0.2 --data "$(mktemp -d)"' in refused.stderr
    asked = debian.attempt("birthmark", "env", "--data", "/tmp/nothing", user="ada")
    assert "operator.server_not_running" in asked.stderr
    assert debian.attempt("birthmark", "why", "--data", "/tmp/nothing", user="ada").stderr.count("login.") == 0


def test_of_two_versions_on_one_directory_the_older_says_that_there_is_a_newer(debian: DebianRoot) -> None:
    (debian.path / "given/older").mkdir()
    older = unpacked("0.2.0", debian.path / "given/older") / "data"
    at = ("env", "HOME=/given", "BIRTHMARK_DATA=/given/older/data")
    looked = debian.attempt(*at, "birthmark", "upgrade", "--check", user=None)
    assert "0.2.0 (schema" in looked.stdout
    with closing(sqlite3.connect(older / "birthmark.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    refused = debian.attempt(*at, "birthmark", "serve", "--listen", "127.0.0.2", user=None)
    assert "store.schema_too_new" in refused.stderr
    assert "type -a birthmark" in refused.stderr
    assert not (older / "operator.sock").exists()


def test_the_agent_is_installed_beside_it_and_the_program_is_still_the_servers(
    debian: DebianRoot, packages: dict[str, Path]
) -> None:
    debian.apt("install", given(debian, packages["birthmark-agent"]))
    assert program_of(debian) == "/usr/lib/birthmark/bin/birthmark"
    # An absolute path that leads nowhere here is one in the root.
    assert (debian.path / "etc/systemd/system/multi-user.target.wants/birthmark-agent.service").is_symlink()
    told = debian.attempt(
        "/usr/lib/birthmark-agent/bin/birthmark", "agent", "check", "--offline", user="birthmark-agent"
    )
    assert "/etc/aziot/config.toml" in told.stderr
    assert debian.attempt("/usr/lib/birthmark-agent/bin/birthmark", "serve").stderr.count("server") > 0


def test_an_agent_that_was_taken_over_gets_nothing_of_roots_by_an_upgrade(
    debian: DebianRoot, packages: dict[str, Path]
) -> None:
    certs, target = debian.path / "var/lib/aziot/certd/certs", debian.path / "srv/roots"
    target.mkdir(mode=0o755)
    certs.rmdir()
    certs.symlink_to("/srv/roots")
    debian.dpkg("--install", given(debian, packages["birthmark-agent"]))
    certs.unlink()
    found = target.stat()
    assert (found.st_uid, found.st_mode & 0o777) == (0, 0o755)


def test_a_proxys_password_is_for_no_other_user(debian: DebianRoot) -> None:
    variables = debian.path / "etc/default/birthmark-agent"
    assert "PASSWORD" in variables.read_text()
    assert variables.stat().st_mode & 0o777 == 0o640


def test_every_command_has_its_page(debian: DebianRoot) -> None:
    pages = {path.name for path in (debian.path / "usr/share/man/man1").iterdir() if "birthmark" in path.name}
    assert {"birthmark.1.gz", "birthmark-agent.1.gz", "birthmark-server.1.gz", "birthmark-device.1.gz"} <= pages


def test_an_upgrade_keeps_data_and_configuration(debian: DebianRoot, packages: dict[str, Path], tmp_path: Path) -> None:
    configuration = debian.path / "etc/birthmark/server.toml"
    mine = configuration.read_text() + 'names = ["pump-house"]\n'
    configuration.write_text(mine)
    debian.dpkg(
        "--install", "--force-confdef", "--force-confold", given(debian, newer(packages["birthmark"], tmp_path))
    )
    assert configuration.read_text() == mine
    assert configuration.stat().st_mode & 0o777 == 0o640
    with debian.serving(*SERVE):
        send(debian, "again")
        assert [row["body"] for row in rows(debian, "hub", "messages")] == ["hello", "closed", "again"]


def test_what_is_removed_leaves_data_and_configuration(debian: DebianRoot) -> None:
    debian.apt("remove", "birthmark")
    assert program_of(debian) == "/usr/lib/birthmark-agent/bin/birthmark"
    assert not (debian.path / "usr/lib/birthmark").exists()
    assert (debian.path / "var/lib/birthmark/birthmark.db").exists()
    assert "pump-house" in (debian.path / "etc/birthmark/server.toml").read_text()


def test_installed_again_it_has_what_it_had_and_warns_of_nothing(debian: DebianRoot, packages: dict[str, Path]) -> None:
    said = debian.dpkg("--install", "--force-confdef", "--force-confold", given(debian, packages["birthmark"]))
    assert "in place of this package" not in said
    assert (debian.path / "var/lib/birthmark/birthmark.db").exists()
    assert not (debian.path / "etc/systemd/system/birthmark-server.service").is_symlink()


def test_a_disk_of_its_own_is_emptied_by_a_purge_and_stays(debian: DebianRoot) -> None:
    """The disk is there for the time of the purge alone: what lies below its place is as it was."""
    disk = "mount -t tmpfs tmpfs /var/lib/birthmark; touch /var/lib/birthmark/ca.key; dpkg --purge birthmark"
    done = debian.attempt("sh", "-c", f"{disk}; echo $?; ls -A /var/lib/birthmark", user=None)
    assert done.stdout.splitlines()[-1] == "0", done.stdout + done.stderr
    shutil.rmtree(debian.path / "var/lib/birthmark")


def test_what_is_purged_leaves_nothing(debian: DebianRoot) -> None:
    (debian.path / "etc/aziot/config.toml").write_text("# how this device is configured\n")
    debian.apt("purge", "birthmark", "birthmark-agent")
    kept = {name for name in debian.names() if not name.startswith(("var/log/", "var/cache/", "given"))}
    assert kept == set()


def test_what_the_machine_had_of_that_name_before_stays_and_a_link_is_followed(
    debian: DebianRoot, packages: dict[str, Path]
) -> None:
    """A user who was made by hand, of another group, and data that the administrator moved."""
    debian.run("useradd", "--gid", "nogroup", "--home-dir", "/srv/ours", "birthmark", user=None)
    moved, place = debian.path / "srv/moved", debian.path / "var/lib/birthmark"
    moved.mkdir()
    place.symlink_to("/srv/moved")
    debian.dpkg("--install", given(debian, packages["birthmark"]))
    (moved / "ca.key").write_text("a secret")
    read = debian.attempt("runuser", "-u", "birthmark", "--", "cat", "/etc/birthmark/server.toml", user=None)
    assert read.returncode == 0, read.stderr
    debian.dpkg("--purge", "birthmark")
    assert debian.run("getent", "passwd", "birthmark", user=None).split(":")[5] == "/srv/ours"
    assert list(moved.iterdir()) == []
    assert not place.is_symlink()
    debian.run("userdel", "birthmark", user=None)
    debian.attempt("groupdel", "birthmark", user=None)


def test_a_purge_while_something_of_the_user_still_runs_ends_and_says_who_stays(
    debian: DebianRoot, packages: dict[str, Path]
) -> None:
    debian.dpkg("--install", given(debian, packages["birthmark"]))
    runs = "setpriv --reuid=birthmark --regid=birthmark --clear-groups sleep 60 & sleep 1"
    done = debian.attempt("sh", "-c", f"{runs}; dpkg --purge birthmark; echo $?; kill $!", user=None)
    assert done.stdout.splitlines()[-1] == "0", done.stdout + done.stderr
    assert "the user birthmark stays" in done.stderr
    debian.run("userdel", "birthmark", user=None)


def azures(directory: Path) -> Path:
    """Return a package of the name of Azure's own."""
    (directory / "azures/DEBIAN").mkdir(parents=True)
    fields = {"Package": "aziot-identity-service", "Version": "1", "Architecture": "all"}
    fields |= {"Maintainer": "Nobody <nobody@example.com>", "Description": "a name"}
    text = "".join(f"{name}: {value}\n" for name, value in fields.items())
    (directory / "azures/DEBIAN/control").write_text(text)
    made = directory / "azures.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", str(directory / "azures"), str(made)], check=True)
    return made


def test_what_azures_services_have_since_is_not_purged_with_an_agent_that_was(
    debian: DebianRoot, packages: dict[str, Path], tmp_path: Path
) -> None:
    debian.dpkg("--install", given(debian, packages["birthmark-agent"]))
    debian.dpkg("--remove", "birthmark-agent")
    debian.dpkg("--install", given(debian, azures(tmp_path)))
    config = debian.path / "etc/aziot/config.toml"
    config.write_text("# of theirs\n")
    debian.dpkg("--purge", "birthmark-agent")
    assert config.read_text() == "# of theirs\n"
    assert (debian.path / "var/lib/aziot/keyd").is_dir()


@pytest.mark.skipif(shutil.which("lintian") is None, reason="lintian is not on this machine")
def test_lintian_finds_nothing(packages: dict[str, Path]) -> None:
    judge = ["lintian", "--fail-on", "error,warning", "--allow-root", str(packages["birthmark-agent"])]
    told = subprocess.run(judge, capture_output=True, text=True, check=False, timeout=300)
    assert told.returncode == 0, told.stdout + told.stderr
