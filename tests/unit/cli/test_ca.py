"""`birthmark ca` as an operator types it."""

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from typer.testing import CliRunner, Result

from birthmark import atomic_files
from birthmark.ca import ca_directory
from birthmark.cli.app import app
from birthmark.cli.ca.hierarchy import passphrase
from birthmark.cli.options.ca import AuthorityOptions, _passphrase
from birthmark.clock_and_entropy import SystemClock
from birthmark.operator_api.data_directory_lock import DirectoryInUseError, DirectoryLock, is_served
from birthmark.pki.ca_possession_proof import check_possession
from birthmark.pki.certificates import parse_bundle, parse_pem
from birthmark.pki.path_validation import build_chain
from support.pki.pki_builders import a_csr, a_device, a_key


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("operator") / "ca"
    assert run("init", directory, "--name", "Example Gateways").exit_code == 0
    return directory


def run(command: str, directory: Path, *arguments: str) -> Result:
    _passphrase.cache_clear()  # as in a process of its own
    return CliRunner().invoke(app, ["ca", command, *arguments, "--dir", str(directory)], catch_exceptions=False)


def test_a_new_ca_is_shown_and_not_made_twice(ca: Path) -> None:
    shown = [json.loads(line) for line in run("show", ca, "--json").stdout.splitlines()]
    assert [row["ca"] for row in shown[:2]] == ["root", "issuing"]
    again = run("init", ca, "--name", "Other")
    assert again.exit_code == 1
    assert "ca.exists" in again.stderr


def test_a_request_becomes_a_certificate_with_its_chain(ca: Path, tmp_path: Path) -> None:
    (tmp_path / "device.csr").write_bytes(a_csr("device-1", key=a_key()))
    result = run("sign", ca, str(tmp_path / "device.csr"), "--lifetime", "30d", "--out", str(tmp_path / "device.pem"))
    assert result.exit_code == 0, result.stderr
    chain = parse_bundle((tmp_path / "device.pem").read_text())
    anchors = ca_directory.load(ca).anchors
    assert build_chain(chain[0], chain, anchors, SystemClock().now()) == (*chain, *anchors)
    assert "device-1" in run("show", ca, "device-1").stdout


def armored(label: str) -> bytes:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(REQUEST).decode()}-----END {label}-----\n".encode()


REQUEST = a_csr("device-1", key=a_key())
REQUESTS = {
    "certutil -encode": armored("CERTIFICATE"),
    "certutil -encode in UTF-16": armored("CERTIFICATE").decode().encode("utf-16"),
    "certreq": armored("NEW CERTIFICATE REQUEST"),
    "base64 of PEM": base64.b64encode(armored("CERTIFICATE REQUEST")),
    "base64 of PEM in lines": base64.encodebytes(armored("CERTIFICATE REQUEST")),
    "base64": base64.b64encode(REQUEST),
    "CR": armored("CERTIFICATE REQUEST").replace(b"\n", b"\r"),
}


@pytest.mark.parametrize("form", REQUESTS)
def test_a_request_in_any_form_is_signed(ca: Path, tmp_path: Path, form: str) -> None:
    (tmp_path / "device.csr").write_bytes(REQUESTS[form])
    result = run("sign", ca, str(tmp_path / "device.csr"), "--out", str(tmp_path / "device.pem"))
    assert result.exit_code == 0, result.stderr


def test_of_several_requests_in_a_file_none_is_dropped(ca: Path, tmp_path: Path) -> None:
    for label in ("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST", "CERTIFICATE"):
        (tmp_path / "both.csr").write_bytes(armored(label) * 2)
        result = run("sign", ca, str(tmp_path / "both.csr"))
        assert result.exit_code == 1
        assert "Put each request into its own file" in " ".join(result.stderr.split())


def test_a_table_in_the_place_of_a_request_is_named(ca: Path, tmp_path: Path) -> None:
    tables = {
        "list.txt": b"id,certificate\r\nchip-1,MIIB\r\n",
        "list.csv": b'id,csr\nchip-1,"' + armored("CERTIFICATE REQUEST") + b'"\n',
        "unicode.txt": "id\tcsr\r\nchip-1\tMIIB\r\n".encode("utf-16"),
    }
    for name, content in tables.items():
        (tmp_path / name).write_bytes(content)
        assert "it is a table" in " ".join(run("sign", ca, str(tmp_path / name)).stderr.split()), name


def test_a_certificate_in_the_place_of_a_request_is_named(ca: Path, tmp_path: Path) -> None:
    (tmp_path / "device.csr").write_bytes(a_device().certificate.der)
    result = run("sign", ca, str(tmp_path / "device.csr"))
    assert "it is a certificate, not a certificate request" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("form", "way"),
    [
        (PrivateFormat.TraditionalOpenSSL, NoEncryption()),
        (PrivateFormat.PKCS8, NoEncryption()),
        (PrivateFormat.PKCS8, BestAvailableEncryption(b"pw")),
    ],
)
def test_a_key_in_the_place_of_a_request_is_named(
    ca: Path, tmp_path: Path, form: PrivateFormat, way: KeySerializationEncryption
) -> None:
    (tmp_path / "device.csr").write_bytes(a_device().private_key.private_bytes(Encoding.PEM, form, way))
    result = run("sign", ca, str(tmp_path / "device.csr"))
    assert "it is a private key, not a certificate request" in " ".join(result.stderr.split())


def test_pkcs12_in_the_place_of_a_request_is_told_from_one(ca: Path, tmp_path: Path) -> None:
    made = a_device()
    pfx = pkcs12.serialize_key_and_certificates(None, made.private_key, made.certificate.parsed, None, NoEncryption())
    (tmp_path / "device.pfx").write_bytes(pfx)
    result = run("sign", ca, str(tmp_path / "device.pfx"))
    assert "it is PKCS#12 or PKCS#7, not a certificate request" in " ".join(result.stderr.split())


def test_openssl_agrees_with_the_chain(ca: Path, tmp_path: Path) -> None:
    result = run(
        "issue", ca, "hub.example", "--cert-profile", "server", "--dns", "hub.example", "--out-dir", str(tmp_path)
    )
    assert result.exit_code == 0, result.stderr
    leaf = tmp_path / "hub.example.cert.pem"
    assert (tmp_path / "hub.example.key.pem").stat().st_mode & 0o777 == 0o600
    command: list[str | Path] = ["openssl", "verify", "-x509_strict", "-CAfile", ca / "root.pem", "-untrusted", leaf]
    command += ["-purpose", "sslserver", "-verify_hostname", "hub.example", leaf]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().endswith("OK")
    assert run("issue", ca, "hub.example", "--out-dir", str(tmp_path)).exit_code == 1


def test_the_key_of_an_earlier_issue_is_not_replaced(ca: Path, tmp_path: Path) -> None:
    (tmp_path / "pump.key.pem").write_text("earlier")
    refused = run("issue", ca, "pump", "--out-dir", str(tmp_path))
    assert refused.exit_code == 1
    assert f"{tmp_path / 'pump.key.pem'} already exists." in refused.stderr
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("pump.key.pem", "earlier")]
    assert run("show", ca, "pump").exit_code == 3, "nothing was issued"


def test_the_certificate_of_a_key_that_was_moved_away_is_kept_beside(ca: Path, tmp_path: Path) -> None:
    (tmp_path / "pump.cert.pem").write_text("earlier")
    done = run("issue", ca, "pump", "--out-dir", str(tmp_path))
    assert done.exit_code == 0
    assert "pump.cert.pem.old" in done.stderr
    assert (tmp_path / "pump.cert.pem.old").read_text() == "earlier"
    assert (tmp_path / "pump.cert.pem").read_text().startswith("-----BEGIN CERTIFICATE-----")


def test_possession_is_proven_by_a_certificate_for_the_code(ca: Path, tmp_path: Path) -> None:
    proof = tmp_path / "proof.pem"
    assert run("verify-possession", ca, "75B0A1F0", "--out", str(proof)).exit_code == 0
    root = ca_directory.load(ca).root.certificate
    check_possession(parse_pem(proof.read_text()), root, "75B0A1F0", SystemClock().now())


def test_a_revoked_device_is_on_the_list(ca: Path, tmp_path: Path) -> None:
    run("issue", ca, "lost", "--out-dir", str(tmp_path))
    result = run("revoke", ca, "lost", "--reason", "keyCompromise", "--json")
    assert json.loads(result.stdout)["revocation_reason"] == "keyCompromise"
    listed = json.loads(run("crl", ca, "--json").stdout)
    assert listed["revoked"] == 1
    assert listed["crl"].startswith("-----BEGIN X509 CRL-----")
    assert run("revoke", ca, "lost").exit_code == 3


def test_refusals_have_exit_codes_and_say_what_to_do(ca: Path, tmp_path: Path) -> None:
    assert run("show", tmp_path / "nowhere").exit_code == 3
    assert run("sign", ca, str(tmp_path / "missing.csr")).exit_code == 3
    (tmp_path / "bad.csr").write_text("no request")
    refused = run("sign", ca, str(tmp_path / "bad.csr"), "--json")
    assert refused.exit_code == 1
    assert json.loads(refused.stderr)["fix"]
    assert run("issue", ca, "x", "--lifetime", "1 year").exit_code == 2


def test_after_a_revocation_it_says_how_a_server_learns_of_it(
    ca: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("here", "elsewhere", "replaced"):
        run("issue", ca, name)
    (tmp_path / "elsewhere.cert.pem").rename(tmp_path / "moved.pem")
    told = run("revoke", ca, "here", "--reason", "keyCompromise")
    assert "`birthmark pki revoke --key-of here.cert.pem --reason keyCompromise`" in told.stderr
    assert "--key-of" not in told.stdout
    assert "`birthmark pki revoke --key-of FILE`" in run("revoke", ca, "elsewhere").stderr
    assert run("revoke", ca, "replaced", "--reason", "superseded").stderr == ""  # its key stays good


def test_a_list_that_goes_into_a_file_is_told_of(ca: Path, tmp_path: Path) -> None:
    out = tmp_path / "ca.crl"
    told = run("crl", ca, "--out", str(out)).stdout
    assert str(out) in told
    assert "revoked" in told
    assert "next update" in told
    assert "BEGIN" not in told


@pytest.mark.parametrize("command", ["init", "show", "issue", "sign", "verify-possession", "revoke", "crl"])
def test_every_command_has_an_example(command: str) -> None:
    assert "Example:" in CliRunner().invoke(app, ["ca", command, "--help"]).stdout


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_an_address_of_a_server_is_an_address_to_its_clients(ca: Path, tmp_path: Path, address: str) -> None:
    result = run("issue", ca, "local", "--cert-profile", "server", "--dns", address, "--out-dir", str(tmp_path))
    assert result.exit_code == 0, result.stderr
    leaf = tmp_path / "local.cert.pem"
    command: list[str | Path] = [
        "openssl",
        "verify",
        "-CAfile",
        ca / "root.pem",
        "-untrusted",
        leaf,
        "-verify_ip",
        address,
        leaf,
    ]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().endswith("OK")


def test_the_inventory_is_exported_and_no_name_is_a_formula(tmp_path: Path) -> None:
    ca = tmp_path / "ca"
    run("init", ca, "--name", "Example")
    for name, lifetime in (("=cmd|' /C calc'!A0", "20d"), ("second", "40d")):
        assert run("issue", ca, name, "--out-dir", str(tmp_path), "--lifetime", lifetime).exit_code == 0
    lines = run("show", ca, "--csv").stdout.splitlines()
    assert lines[0].startswith("device,profile,issuer,serial")
    assert [line.split(",")[1] for line in lines[1:]] == ["device", "device", "issuing_ca"]
    assert lines[1].startswith("'=cmd")
    rows = [json.loads(line) for line in run("show", ca, "--expiring", "30d", "--json").stdout.splitlines()]
    assert [row["device"] for row in rows] == ["=cmd|' /C calc'!A0"]
    assert run("show", ca, "--issuer", "root", "--json").stdout.count("issuing_ca") == 1
    assert run("show", ca, "--issuer", "nobody").exit_code == 1
    assert run("show", ca, "second", "--revoked").exit_code == 2
    assert "No certificate matches" in run("show", ca, "--revoked").stderr


def test_the_passphrase_of_every_generation_moves_together_and_again_after_a_stop(tmp_path: Path) -> None:
    ca, newer = tmp_path / "ca", tmp_path / "ca-0a1b2c"
    for directory in (ca, newer):
        run("init", directory, "--name", "Example")
    (tmp_path / "audit.seed").touch()  # they are a server's
    told = run("passphrase", ca, "--new", f"file:{tmp_path}/secret", "--json")
    assert json.loads(told.stdout)["keys"] == 4, told.stderr
    source = ("--passphrase", f"file:{tmp_path}/secret")
    for directory in (ca, newer):
        assert run("show", directory).exit_code == 5
        assert run("show", directory, *source).exit_code == 0
    back = run("passphrase", newer, "--new", "beside", *source)  # as when a run was stopped between the two
    assert back.exit_code == 0, back.stderr
    assert run("show", newer).exit_code == 0


def test_the_passphrase_of_a_copy_beside_a_ca_of_no_server_stays(tmp_path: Path) -> None:
    ca, copy = tmp_path / "ca", tmp_path / "ca-before"
    run("init", ca, "--name", "Example")
    shutil.copytree(ca, copy)
    told = run("passphrase", ca, "--new", f"file:{tmp_path}/secret", "--json")
    assert json.loads(told.stdout)["keys"] == 2, told.stderr
    assert run("show", copy).exit_code == 0


def test_the_passphrase_does_not_move_where_a_server_started_while_a_person_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = DirectoryLock(tmp_path)
    run("init", tmp_path / "ca", "--name", "Example")

    def typed(_asked: str) -> str:
        if not server.is_held:
            server.acquire()
        return "correct horse"

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("getpass.getpass", typed)
    with pytest.raises(DirectoryInUseError):
        passphrase(AuthorityOptions(tmp_path / "ca"), "prompt")
    server.release()
    assert run("show", tmp_path / "ca").exit_code == 0


def test_no_server_starts_while_the_passphrase_moves_and_no_lock_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    replace = atomic_files.replace

    def watched(*arguments: Any, **options: Any) -> None:
        seen.append(is_served(tmp_path))
        replace(*arguments, **options)

    run("init", tmp_path / "ca", "--name", "Example")
    monkeypatch.setattr(atomic_files, "replace", watched)
    assert run("passphrase", tmp_path / "ca", "--new", f"file:{tmp_path}/secret").exit_code == 0
    assert set(seen) == {True}
    assert {one.name for one in tmp_path.iterdir()} == {"ca", "secret"}


@pytest.mark.parametrize("name", ["ca", "ca-3F9A01"])
@pytest.mark.parametrize(
    ("command", "printed"),
    [
        (["issue", "device-1"], "birthmark env --format aziot --registration-id device-1 --data "),
        (["issue", "web", "--cert-profile", "server"], "birthmark ca init --name 'My organization' --dir own-ca"),
        (["revoke", "device-1", "--reason", "keyCompromise"], "pki revoke --device device-1 --reason keyCompromise"),
        (["revoke", "ab" * 32], f"birthmark pki revoke {'ab' * 32} --data "),
        (["crl", "--of", "root"], "birthmark pki crl --of root --data "),
        (["show", "device-1"], "birthmark pki ls device-1 --data "),
    ],
    ids=lambda words: words[0] if isinstance(words, list) else "",
)
def test_a_servers_ca_is_left_to_the_server(
    ca: Path, tmp_path: Path, name: str, command: list[str], printed: str
) -> None:
    data = tmp_path / "data"
    shutil.copytree(ca, data / name)
    (data / name / "inventory.db").unlink(missing_ok=True)
    (data / "operator.token").write_text("x\n")
    verb, *arguments = command
    refused = run(verb, data / name, *arguments)
    assert refused.exit_code == 1
    assert "ca.of_a_server" in refused.stderr
    assert printed in refused.stderr
    assert not (data / name / "inventory.db").exists()
    assert run("show", data / name).exit_code == 0, "which CAs there are may be looked at"


def test_a_ca_of_ones_own_may_stand_beside_a_server(ca: Path, tmp_path: Path) -> None:
    shutil.copytree(ca, tmp_path / "factory")
    (tmp_path / "operator.token").write_text("x\n")
    assert run("issue", tmp_path / "factory", "device-1", "--out-dir", str(tmp_path)).exit_code == 0
