"""`birthmark chip` as an operator types it, on a software chip."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from typer.testing import CliRunner, Result

from birthmark.cli.app import app
from birthmark.cli.input_files import MAX_FILE_BYTES
from birthmark.keys.se050_reference_keys import parse_reference_key
from birthmark.pki.certificates import parse_pem
from birthmark.secure_elements.chip_profiles import Algorithm
from birthmark.secure_elements.softhsm_element import SoftwareElement
from birthmark.secure_elements.token_object_management import generate

pytestmark = pytest.mark.integration


@pytest.fixture
def chip(tmp_path: Path) -> dict[str, str]:
    made = run("simulate", str(tmp_path / "chip"), "--chip", "atecc608", "--json")
    assert made.exit_code == 0, made.stderr
    return {name: value for name, value in json.loads(made.stdout).items() if name.isupper()}


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(app, ["chip", *arguments], env=env, catch_exceptions=False)


def rows(result: Result) -> list[dict[str, object]]:
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_simulate_prints_lines_for_the_shell_and_keeps_what_is_there(tmp_path: Path) -> None:
    first, second = (run("simulate", str(tmp_path / "chip")) for _ in range(2))
    assert first.stdout == second.stdout
    assert f"export SOFTHSM2_CONF={tmp_path}/chip/softhsm2.conf\n" in first.stdout
    assert "it is kept" in second.stderr
    assert run("simulate", str(tmp_path / "x"), "--chip", "nothing").exit_code == 2


def test_simulate_makes_a_variant_of_the_se050(tmp_path: Path) -> None:
    (made,) = rows(run("simulate", str(tmp_path / "chip"), "--variant", "A", "--json"))
    assert made["BIRTHMARK_TOKEN"] == "SSS_PKCS11"
    again = run("simulate", str(tmp_path / "chip"), "--variant", "B")
    assert "cli.option_not_applicable" in again.stderr
    assert run("simulate", str(tmp_path / "x"), "--variant", "X").exit_code == 2
    other = run("simulate", str(tmp_path / "x"), "--chip", "generic", "--variant", "A")
    assert "cli.option_not_applicable" in other.stderr
    assert not (tmp_path / "x").exists()


def test_list_shows_the_id_of_a_key_without_a_label_as_options_take_it(atecc608: SoftwareElement) -> None:
    with atecc608.open() as element, element.token.session() as session:
        generate(session, "", Algorithm.P256, b"\x07")
    listed = run("ls", env=dict(atecc608.environment))
    assert "  private key  id:07 " in listed.stdout
    assert run("refkey", "id:07", "--uri", env=dict(atecc608.environment)).exit_code == 0


def test_list_shows_tokens_and_objects(se050: SoftwareElement) -> None:
    env = dict(se050.environment)
    found = rows(run("ls", "--json", env=env))
    assert found[0]["kind"] == "token"
    assert found[0]["profile"] == "se050"
    keys = {row["object_id"]: row for row in found if row["kind"] == "private key"}
    assert keys["0xF0000110"]["detail"] == "RSA 2048"
    assert keys["0xF0000110"]["guarded"] is True
    text = run("ls", env=env).stdout
    assert "NXP EdgeLock SE050" in text
    assert "never extractable" in text
    assert "--pin-file" in run("ls", env=env | {"BIRTHMARK_PIN_FILE": ""}).stderr


def test_show_cert_and_refkey_of_an_se050(se050: SoftwareElement, tmp_path: Path) -> None:
    env = dict(se050.environment)
    (shown,) = rows(run("show", "0xF0000110", "--json", env=env))
    assert shown["key"] == "pkcs11:token=SSS_PKCS11;object=sss:F0000110;type=private"
    certificate = parse_pem(run("cert", env=env).stdout)
    assert (certificate.subject_cn or "").startswith("se050-")
    assert run("refkey", "0xF0000100", "--out", str(tmp_path / "ref.pem"), env=env).exit_code == 0
    assert parse_reference_key((tmp_path / "ref.pem").read_bytes()) == 0xF0000100
    assert "PKCS#11 PROVIDER URI" in run("refkey", "--uri", env=env).stdout


def test_a_key_is_named_by_its_certificates_id_too(se050: SoftwareElement) -> None:
    for key, certificate in (("0xF0000100", "0xF0000101"), ("0xF0000110", "0xF0000111")):
        by_key, by_certificate = (run("cert", one, env=dict(se050.environment)) for one in (key, certificate))
        assert by_certificate.exit_code == 0, by_certificate.stderr
        assert by_certificate.stdout == by_key.stdout


def test_the_profile_of_a_chip_that_is_there_is_not_changed_in_silence(se050: SoftwareElement) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["birthmark", "chip", "simulate", "--chip", "atecc608"])
        done = run("simulate", str(se050.directory), "--chip", "atecc608")
    assert done.exit_code == 2
    assert "cli.option_not_applicable" in done.stderr


def test_a_certificate_by_csr_is_written_back_with_its_issuer(chip: dict[str, str], tmp_path: Path) -> None:
    request, signed, directory = tmp_path / "d.csr", tmp_path / "d.pem", str(tmp_path / "ca")
    assert run("csr", "--cn", "device-1", "--out", str(request), env=chip).exit_code == 0
    assert x509.load_pem_x509_csr(request.read_bytes()).is_signature_valid
    for command in (["init", "--name", "Own"], ["sign", str(request), "--out", str(signed)]):
        assert CliRunner().invoke(app, ["ca", *command, "--dir", directory]).exit_code == 0
    written = rows(run("write", str(signed), "--json", env=chip))
    assert [row["label"] for row in written] == ["device", "signer"]
    assert run("cert", "--chain", env=chip).stdout == signed.read_text()


def test_data_is_written_and_read(chip: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"\x00\x01binary")
    assert run("write", str(tmp_path / "data"), "--object", "slot8", env=chip).exit_code == 0
    assert run("show", "--object", "slot8", env=chip).stdout_bytes == b"\x00\x01binary"
    (shown,) = rows(run("show", "--json", env=chip))
    assert "does not contain a Birthmark assignment" in str(shown["remembers"])


def test_a_file_that_is_too_large_is_never_cut(chip: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(bytes(MAX_FILE_BYTES + 1))
    done = run("write", str(tmp_path / "data"), "--object", "large", env=chip)
    assert (done.exit_code, "elements.data_too_large" in done.stderr) == (1, True)
    assert run("show", "--object", "large", env=chip).exit_code != 0


def test_another_programs_data_is_overwritten_by_the_command_that_the_refusal_names(
    chip: dict[str, str], tmp_path: Path
) -> None:
    write = ["write", str(tmp_path / "data"), "--object", "slot8"]
    (tmp_path / "data").write_bytes(b"theirs")
    assert run(*write, env=chip).exit_code == 0
    (tmp_path / "data").write_bytes(b"ours")
    refused = run(*write, env=chip)
    assert refused.exit_code != 0
    assert "elements.data_occupied" in refused.stderr
    assert run("show", "--object", "slot8", env=chip).stdout_bytes == b"theirs"
    assert run(*write, "--replace-data", env=chip).exit_code == 0
    assert run("show", "--object", "slot8", env=chip).stdout_bytes == b"ours"


def test_a_how_tos_memory_is_shown_in_its_layout_only(chip: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"gateway-7".ljust(20, b"\0") + b"hub.example".ljust(48, b"\0"))
    assert run("write", str(tmp_path / "data"), "--object", "slot8", env=chip).exit_code == 0
    remembered = {"hub": "hub.example", "device": "gateway-7", "scope": "", "layout": "howto"}
    for layout in ([], ["--layout", "howto"]):
        (shown,) = rows(run("show", "--json", *layout, env=chip))
        assert shown["remembers"] == remembered
    (shown,) = rows(run("show", "--json", "--layout", "birthmark", env=chip))
    assert "its layout is 'howto'" in str(shown["remembers"])
    (listed,) = [row for row in rows(run("ls", "--json", env=chip)) if row["kind"] == "data"]
    assert listed["detail"] == "68 bytes, the how-to's layout: serial gateway-7, hub hub.example"


def test_a_new_key_proves_its_possession(chip: dict[str, str], tmp_path: Path) -> None:
    (made,) = rows(run("keygen", "next", "--id", "0a0b", "--json", env=chip))
    assert made["id"] == "0a0b"
    proof = run("prove", "next", "--nonce", "chosen by the asker", env=chip)
    (tmp_path / "proof.json").write_text(proof.stdout)
    check = ["prove", "--check", str(tmp_path / "proof.json"), "--nonce"]
    (checked,) = rows(run(*check, "chosen by the asker", "--json"))
    assert checked["public_key"] == made["public_key"]
    assert run(*check, "chosen by another").exit_code == 1
    assert run("keygen", "next", env=chip).exit_code == 1


@pytest.mark.parametrize(
    ("change", "arguments", "code", "says"),
    [
        ({"BIRTHMARK_TOKEN": "nobody"}, ["show"], 3, "keys.token_not_found"),
        ({"BIRTHMARK_TOKEN": "nobody"}, ["show"], 3, '`eval "$(birthmark chip simulate chip)"`'),
        ({"BIRTHMARK_PKCS11_MODULE": "/nowhere.so"}, ["show"], 5, "keys.module_missing"),
        ({"BIRTHMARK_PKCS11_MODULE": "/etc/passwd"}, ["show"], 5, "keys.module_broken"),
        ({"BIRTHMARK_PIN_FILE": "/nowhere"}, ["show"], 1, "keys.pin_file"),
        ({"BIRTHMARK_PIN_FILE": ""}, ["show"], 4, "keys.pin_missing"),
        ({}, ["show", "nobody"], 3, "keys.key_not_found"),
        ({}, ["show", "id:zz"], 1, "elements.selector_invalid"),
        ({}, ["refkey"], 1, "elements.no_reference_key"),
        ({}, ["exec", "--", "no-such-program"], 3, "elements.program_missing"),
        ({}, ["write", "/nowhere.pem"], 3, "elements.file_missing"),
        ({}, ["prove", "--check", "/etc/hostname", "--nonce", "12345678"], 1, "elements.proof_unreadable"),
    ],
)
def test_refusals_say_what_to_do(
    chip: dict[str, str], change: dict[str, str], arguments: list[str], code: int, says: str
) -> None:
    result = run(*arguments, env=chip | change)
    assert (result.exit_code, says in result.stderr) == (code, True), result.stderr
    assert "Fix: " in result.stderr


def test_a_wrong_pin_and_an_exposed_pin_file_are_told_apart(chip: dict[str, str], tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    pin.write_text("00000000\n")
    pin.chmod(0o644)
    assert "chmod 0600" in run("show", env=chip | {"BIRTHMARK_PIN_FILE": str(pin)}).stderr
    pin.chmod(0o600)
    wrong = run("show", env=chip | {"BIRTHMARK_PIN_FILE": str(pin)})
    assert (wrong.exit_code, "keys.pin_wrong" in wrong.stderr) == (4, True)


def test_exec_replaces_the_process_by_the_program_with_the_hook(se050: SoftwareElement) -> None:
    body = "import os, ssl; print(ssl.SSLContext.load_cert_chain.__module__, os.environ['BIRTHMARK_EXEC_TOKEN'])"
    command = [sys.executable, "-c", "from birthmark.cli.app import app; app()", "chip", "exec"]
    program = ["--", sys.executable, "-c", body]

    def run(*options: str) -> str:
        environment = {**os.environ, **se050.environment}
        return subprocess.run(
            [*command, *options, *program], env=environment, capture_output=True, text=True, check=True
        ).stdout

    assert run() == "sitecustomize SSS_PKCS11\n"
    explained = run("--explain")
    assert "BIRTHMARK_EXEC_PIN_FILE=" in explained
    assert se050.pin_file.read_text().strip() not in explained
    assert "\nsitecustomize SSS_PKCS11\n" not in explained
