"""Files over files, the nearest known key, the last good configuration, and what is in effect."""

import os
import shlex
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from birthmark.agent.config import ConfigInvalidError, read_config
from birthmark.agent.config.effective_settings import effective
from birthmark.agent.config.toml_tables import ConfigMisnamedError, ConfigMissingError
from birthmark.agent.state import keep, recall
from birthmark.agent.state_directory import AgentPaths
from support.agent.world import CONFIG, World
from support.fakes import NOON

TEXT = CONFIG.replace("TRUST", "/trust.pem")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.touch(mode=0o600)
    path.write_text(TEXT)
    (tmp_path / "config.d").mkdir()
    return path


def over(file: Path, name: str, text: str) -> Path:
    path = file.with_suffix(".d") / name
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def test_files_are_put_over_the_first_by_name_and_tables_are_merged(file: Path) -> None:
    over(file, "20-later.toml", 'hostname = "later"\n')
    over(file, "10-earlier.toml", 'hostname = "earlier"\n[provisioning]\nid_scope = "0ne00OTHER"\n')
    over(file, "30-ignored.txt", "nonsense = ")
    config = read_config(file)
    assert config.hostname == "later"
    assert getattr(config.source, "id_scope", None) == "0ne00OTHER"
    (file.with_suffix(".d") / "20-later.toml").unlink()
    assert read_config(file).digest != config.digest


def test_a_mistake_names_the_file_it_stands_in_and_all_are_told_at_once(file: Path) -> None:
    there = over(file, "50-mistake.toml", "\nhostname = 1\n")
    file.write_text(TEXT.replace('threshold = "80%"', 'threshold = "80 %"'))
    with pytest.raises(ConfigInvalidError) as refused:
        read_config(file)
    told = f"{refused.value.explain_cause()}\n{refused.value.facts['others']}"
    assert f"{there}:2: hostname" in told
    assert f"{file}:8: provisioning.attestation.identity_cert" in told


def test_a_file_that_an_editor_named_txt_is_told_and_how_to_name_it(file: Path) -> None:
    over(file, "10-later.toml.txt", 'hostname = "later"\n')
    (warning,) = read_config(file).warnings
    assert (warning.file, warning.key) == (file.with_suffix(".d") / "10-later.toml.txt", "(name)")
    file.rename(file.with_name("config.toml.txt"))
    with pytest.raises(ConfigMisnamedError) as refused:
        read_config(file)
    assert f"`mv -n {file}.txt {file}`" in refused.value.explain_fix()


@pytest.mark.parametrize("raw", [b'# one\rhostname = "later"\r', '# K\u00f6ln\nhostname = "later"\n'.encode("cp1252")])
def test_the_fix_of_a_file_beside_it_puts_the_one_as_it_was_aside(file: Path, raw: bytes) -> None:
    (there := over(file, "a file.toml", "")).write_bytes(raw)
    with pytest.raises(ConfigInvalidError) as refused:
        read_config(file)
    command = next(one for one in refused.value.explain_fix().split("`") if "umask" in one)
    subprocess.run(["sh", "-c", command], check=True)
    assert read_config(file).hostname == "later"
    assert there.with_name("a file.toml.old").read_bytes() == raw


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize(("owner", "mode"), [(65534, 0o600), (0, 0o666)])
def test_root_reads_no_file_beside_it_that_another_user_can_write(file: Path, owner: int, mode: int) -> None:
    there = over(file, "99.toml", 'hostname = "later"\n')
    os.chown(there, owner, -1)
    there.chmod(mode)
    with pytest.raises(ConfigMissingError) as refused:
        read_config(file)
    os.chown(file, owner, -1)  # whose configuration it is may write all of it
    (subprocess.run(["sh", "-c", refused.value.explain_fix().split("`")[1]], check=True))
    assert read_config(file).hostname == "later"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("what", ["lib/a token.so", "lib", "linked", "link"])
def test_root_loads_no_library_that_another_user_can_write(file: Path, tmp_path: Path, what: str) -> None:
    library = tmp_path / "link" / "a token.so"
    library.parent.mkdir()
    (tmp_path / "linked" / "lib").mkdir(parents=True)
    (tmp_path / "lib").symlink_to(tmp_path / "linked" / "lib")
    (tmp_path / "lib" / library.name).write_bytes(b"")
    library.symlink_to(tmp_path / "lib" / library.name)
    file.write_text(f"{file.read_text()}\n[aziot_keys]\npkcs11_lib_path = '{library}'\n")
    assert read_config(file).keys is not None
    os.chown(tmp_path / what, 65534, -1)
    with pytest.raises(ConfigMissingError) as refused:
        read_config(file)
    assert "install -D -m 644" in refused.value.explain_fix()
    assert "another user can write" in refused.value.explain_cause()


def give_away_a_link(library: Path) -> None:
    (library.parent / "real.so").write_bytes(b"")
    library.symlink_to("real.so")
    os.chown(library, 65534, -1, follow_symlinks=False)


def let_all_write(library: Path) -> None:
    library.write_bytes(b"")
    library.chmod(0o1666)


def leave_to_whoever_comes_first(library: Path) -> None:
    library.parent.chmod(0o1777)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("make", [give_away_a_link, let_all_write, leave_to_whoever_comes_first])
def test_root_loads_no_library_that_another_user_can_exchange(
    file: Path, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    (tmp_path / "lib").mkdir()
    make(library := tmp_path / "lib" / "it's.so")
    file.write_text(f'{file.read_text()}\n[aziot_keys]\npkcs11_lib_path = "{tmp_path}/lib/../lib/it\'s.so"\n')
    with pytest.raises(ConfigMissingError) as refused:
        read_config(file)
    assert f"install -D -m 644 {shlex.quote(f'{tmp_path}/lib/../lib/{library.name}')}" in refused.value.explain_fix()
    assert tomllib.loads(refused.value.explain_fix().split("`")[3])["pkcs11_lib_path"].endswith("/it's.so")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root asks who else may write")
def test_a_library_whose_links_lead_in_a_circle_is_told(file: Path, tmp_path: Path) -> None:
    (tmp_path / "a.so").symlink_to("a.so")
    file.write_text(f"{file.read_text()}\n[aziot_keys]\npkcs11_lib_path = '{tmp_path}/a.so'\n")
    with pytest.raises(ConfigMissingError) as refused:
        read_config(file)
    assert "its symbolic links form a loop" in refused.value.explain_cause()


def test_a_file_whose_name_ends_in_capitals_is_told(file: Path) -> None:
    there = over(file, "B.TOML", 'hostname = "later"\n')
    (warning,) = read_config(file).warnings
    assert (warning.file, warning.key) == (there, "(name)")


def test_a_syntax_error_names_its_file(file: Path) -> None:
    there = over(file, "a.toml", "x = = 1\n")
    with pytest.raises(ConfigInvalidError) as refused:
        read_config(file)
    assert refused.value.explain_cause().startswith(f"{there}:1: ")


@pytest.mark.parametrize(("wrong", "meant"), [("hostnam", "hostname"), ("trust_bundle", "trust_bundle_cert")])
def test_an_unknown_key_is_warned_of_with_the_nearest_known_one(file: Path, wrong: str, meant: str) -> None:
    there = over(file, "a.toml", f'{wrong} = "x"\n')
    (warning,) = read_config(file).warnings
    assert (warning.file, warning.line, warning.key) == (there, 1, wrong)
    assert warning.detail.endswith(f"did you mean {meant}?")


def test_an_unknown_key_like_no_other_is_warned_of_alone(file: Path) -> None:
    over(file, "a.toml", "zzz = 1\n")
    assert [one.detail for one in read_config(file).warnings] == ["is not known and is ignored"]


def test_what_is_in_effect_names_its_place_and_hides_secrets(file: Path) -> None:
    there = over(file, "a.toml", 'hostname = "h"\n[aziot_keys]\npkcs11_base_slot = "pkcs11:token=t?pin-value=1234"\n')
    file.write_text(TEXT.replace('password = "p"', 'password = "secret"'))
    found = {one.key: one for one in effective([(file, file.read_text()), (there, there.read_text())])}
    assert (found["hostname"].value, found["hostname"].file, found["hostname"].line) == ('"h"', there, 1)
    assert found["cert_issuance.est.auth.password"].value == "(hidden)"
    assert "1234" not in str(found.values())
    assert "secret" not in str(found.values())


def test_the_last_good_configuration_is_kept_with_all_its_files_and_for_its_file_alone(file: Path) -> None:
    places = AgentPaths(file.parent / "root")
    places.prepare()
    over(file, "a.toml", 'hostname = "good"\n')
    keep(places, read_config(file), NOON)
    assert places.last_good.stat().st_mode & 0o777 == 0o600
    over(file, "a.toml", "hostname = 1\n")
    found = recall(places, file)
    assert found is not None
    assert (found[0].hostname, found[1]) == ("good", NOON)
    assert recall(places, file.with_name("other.toml")) is None
    places.last_good.write_text("{")
    assert recall(places, file) is None


async def test_what_was_applied_is_the_last_good(tmp_path: Path) -> None:
    world = World(tmp_path)
    agent = world.agent()
    await agent.apply()
    found = recall(agent.places, agent.config.file)
    assert found is not None
    assert found[0].digest == agent.config.digest


async def test_an_individual_enrollment_is_warned_of_where_certificates_are_renewed(tmp_path: Path) -> None:
    world = World(tmp_path)
    agent = world.agent()
    await agent.apply()
    assert agent.enrollment_warning() is None
    world.is_individual = True
    await agent.register(await agent.ensure())
    assert "birthmark device enroll-group" in str(agent.enrollment_warning())


def test_a_directory_in_the_place_of_the_file_leads_to_a_file_within(file: Path) -> None:
    with pytest.raises(ConfigMissingError) as caught:
        read_config(file.parent)
    assert f"{file.parent}/config.toml" in caught.value.explain_fix()
