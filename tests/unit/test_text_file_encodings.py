"""Every file that a person edits is read in the forms that editors and shells write, Windows' among them."""

import base64
import codecs
import importlib.util
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

import birthmark
from birthmark.agent.config import read_config
from birthmark.agent.config.model import DpsSource, PreloadedIdentity
from birthmark.agent.identity_lifecycle import payload_of
from birthmark.cli.device_enroll_shipment import template_of
from birthmark.cli.input_files import FileEncodingError, read_file, read_text
from birthmark.cli.options.device_enrollment import DeviceOptions
from birthmark.device_transports.identity_and_trust import FileIdentity, ServerTrust
from birthmark.device_transports.openssl.tls_context import client_context
from birthmark.errors import BirthmarkError
from birthmark.est.wire import decode_body
from birthmark.fleet.target_profiles import _secret, _tables, azure_profile
from birthmark.keys.errors import PinFileError
from birthmark.keys.file_key import FileKey
from birthmark.keys.pin import Pin
from birthmark.manifests.certificate_lists import ListTrust, verify_list
from birthmark.manifests.errors import MalformedEntryError
from birthmark.manifests.manifest_chunks import count_of
from birthmark.pki.certificates import parse_any, parse_bundle
from birthmark.pki.pem_armor import unarmor
from birthmark.secure_elements.exec import HOOK
from birthmark.server.cluster.node_identity_and_invitation import made, render
from birthmark.server.cluster.node_identity_and_invitation import parse as parse_invitation
from birthmark.server.settings import read_settings
from birthmark.text_file_encodings import (
    decode_text,
    format_trim_command,
    not_utf_8,
    plain_text,
    read_text_file,
    to_lines,
    to_utf_8,
    trimmed,
)
from birthmark.toml_validation import TomlError, parse
from support.fakes import NOON
from support.pki.pki_builders import a_csr, a_device, a_key, key_pem

FORMS: dict[str, Callable[[str], bytes]] = {
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "BOM": lambda text: codecs.BOM_UTF8 + text.encode(),
    "BOM and CRLF": lambda text: codecs.BOM_UTF8 + text.replace("\n", "\r\n").encode(),
    "UTF-16 LE": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "UTF-16 BE": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "two marks": lambda text: codecs.BOM_UTF8 * 2 + text.encode(),
    "UTF-16 LE and two marks": lambda text: codecs.BOM_UTF16_LE * 2 + text.encode("utf-16-le"),
    "the end as DOS writes it": lambda text: text.replace("\n", "\r\n").encode() + b"\x1a",
    "UTF-16 LE without a mark": lambda text: text.encode("utf-16-le"),
    "UTF-16 BE without a mark": lambda text: text.encode("utf-16-be"),
}
DEVICE = a_device()
KEY, CERTIFICATE, CSR = a_key(), DEVICE.certificate, a_csr()
CSR_PEM = f"-----BEGIN CERTIFICATE REQUEST-----\n{base64.encodebytes(CSR).decode()}-----END CERTIFICATE REQUEST-----\n"
INVITATION = render(made("0" * 24, b"k" * 32)).decode()
AGENT = """\
hostname = "pump-1"
[provisioning]
source = "manual"
iothub_hostname = "hub.test"
device_id = "my-device"
[provisioning.authentication]
method = "x509"
identity_cert = "file:///device.pem"
identity_pk = "file:///device.key"
"""


def hook_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("birthmark_hook", HOOK / "sitecustomize.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shown_by_openssl(file: Path) -> int:
    identity = FileIdentity((CERTIFICATE,), FileKey.load(file))
    return int(client_context(identity, ServerTrust(CERTIFICATE.pem())).verify_mode)


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "agent": (AGENT, lambda file: read_config(file).hostname),
    "server": ('host = "cloud.test"\n', lambda file: read_settings(file, {}).host),
    "template": ('[azure]\ntags = { site = "大阪" }\n', lambda file: template_of(file, DeviceOptions())),
    "profiles": ('[plant.azure]\nscope = "0ne"\n', _tables),
    "secret of a profile": ("HostName=x;SharedAccessKey=a2V5\n", lambda file: _secret("plant", file)),
    "key": (key_pem(KEY), lambda file: FileKey.load(file).public_key),
    "certificate": (CERTIFICATE.pem(), lambda file: parse_any(file.read_bytes())),
    "chain": (CERTIFICATE.pem() * 2, lambda file: parse_bundle(file.read_bytes())),
    "request": (CSR_PEM, lambda file: unarmor(file.read_bytes())),
    "request to EST": (f"Certificate Request:\n{CSR_PEM}", lambda file: decode_body(file.read_bytes())),
    "PIN": ("12 34\n", lambda file: Pin.from_file(file).reveal()),
    "PIN within a program under chip exec": ("12 34\n", lambda file: hook_module()._pin_in(file.read_bytes())),
    "payload": (
        '{"site": "大阪"}',
        lambda file: payload_of(DpsSource("h", 1, "0ne", None, PreloadedIdentity(file, file), file)),
    ),
    "document": ('{"a": "温度"}', lambda file: read_file(file).decode()),
    "text": ('{"a": "温度"}', read_text_file),
    "text for a command": ('{"a": "温度"}', read_text),
    "key for OpenSSL": (key_pem(DEVICE.private_key), shown_by_openssl),
    "invitation of a machine": (INVITATION, lambda file: parse_invitation(file.read_bytes(), file)),
    "table": ("id,certificate\nchip,\n", lambda file: [str(one) for one in verify_list(file, ListTrust(()), NOON)]),
}


def written(directory: Path, content: bytes) -> Path:
    file = directory / "file"
    file.touch(0o600)
    file.write_bytes(content)
    return file


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(("text", "read"), READERS.values(), ids=READERS)
def test_a_file_says_the_same_in_every_form(
    tmp_path: Path, text: str, read: Callable[[Path], object], form: Callable[[str], bytes]
) -> None:
    plain = read(written(tmp_path, text.encode()))
    assert read(written(tmp_path, form(text))) == plain


@pytest.mark.parametrize("form", ["CRLF", "BOM", "BOM and CRLF"])
def test_a_manifest_says_the_same_in_every_form_of_utf_8(tmp_path: Path, form: str) -> None:
    with written(tmp_path, FORMS[form]('[\n{"a": 1},\n{"a": 2}\n]\n')).open("rb") as file:
        assert count_of(file) == 2


@pytest.mark.parametrize(("form", "codec"), [("UTF-16 LE", "UTF-16"), ("UTF-16 BE without a mark", "UTF-16BE")])
def test_a_manifest_of_utf_16_is_told_the_command_that_converts_it(tmp_path: Path, form: str, codec: str) -> None:
    file = written(tmp_path, FORMS[form]('[\n{"a": 1}\n]\n'))
    with file.open("rb") as opened, pytest.raises(MalformedEntryError) as refused:
        count_of(opened)
    command = refused.value.explain_fix().split("`")[1]
    assert f"-f {codec} " in command
    subprocess.run(["sh", "-c", command], check=True)
    with file.with_name("file.utf8").open("rb") as converted:
        assert count_of(converted) == 1


def template(file: Path) -> object:
    return template_of(file, DeviceOptions())


def read_profiles(file: Path) -> object:
    file.rename(file.parent / "profiles.toml")
    return azure_profile("factory", file.parent / "none")


@pytest.mark.parametrize("read", [read_config, lambda file: read_settings(file, {}), read_profiles, template])
def test_a_toml_file_in_a_code_page_is_told_its_line_and_the_command_that_converts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object]
) -> None:
    monkeypatch.setattr("birthmark.fleet.target_profiles._FILE", str(tmp_path / "profiles.toml"))
    text = "# a\n# Gerätehalle\n"
    with pytest.raises(BirthmarkError) as refused:
        read(written(tmp_path, text.encode("cp1252")))
    assert "2" in refused.value.explain_cause()
    assert ("Ger" in refused.value.explain_cause()) is (read is template), "others may hold secrets"
    command = next(one for one in refused.value.explain_fix().split("`") if "iconv" in one)
    subprocess.run(["sh", "-c", command], check=True)
    (converted,) = tmp_path.glob("*.utf8*")
    assert converted.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Größe", "CP1252"),
        ("Gerätehalle, Neuchâtel", "CP1252"),
        ("Köln", "CP850"),
        ("Größe", "CP850"),
        ("大阪", "CP932"),
        ("サイト", "CP932"),
    ],
)
def test_text_in_a_code_page_is_told_the_command_that_converts_it(tmp_path: Path, text: str, encoding: str) -> None:
    file = written(tmp_path, text.encode(encoding))
    with pytest.raises(FileEncodingError) as refused:
        read_text(file)
    subprocess.run(["sh", "-c", refused.value.explain_fix().split("`")[1]], check=True)
    assert read_text(file.with_name("file.utf8")) == text


@pytest.mark.parametrize("text", ["Neuchâtel", "Gerät", "Größe", "Fläche groß", "hôtel"])
@pytest.mark.parametrize("encoding", ["CP1252", "CP850", "MACINTOSH"])
def test_one_of_the_words_that_are_shown_is_right_and_its_command_too(tmp_path: Path, text: str, encoding: str) -> None:
    file = written(tmp_path, text.encode(encoding))
    with pytest.raises(FileEncodingError) as refused:
        read_text(file)
    first = next(word for word in text.split() if not word.isascii())
    assert f'"{first}" in {encoding}' in refused.value.explain_cause()
    (command,) = (one for one in refused.value.explain_fix().split("`") if f"iconv -f {encoding} " in one)
    subprocess.run(["sh", "-c", command], check=True)
    assert read_text(file.with_name("file.utf8")) == text


@pytest.mark.parametrize("text", ["web版の設定", "A棟 第2工場", "大阪 site"])
def test_a_japanese_word_among_others_is_japanese(tmp_path: Path, text: str) -> None:
    with pytest.raises(FileEncodingError) as refused:
        read_text(written(tmp_path, text.encode("cp932")))
    assert refused.value.explain_cause().endswith("in CP932).")


@pytest.mark.parametrize("name", ["config.toml", "t.csv", "x"])
def test_a_converted_file_is_for_its_user_alone(tmp_path: Path, name: str) -> None:
    (file := tmp_path / name).write_bytes("Gerätehalle".encode("cp1252"))
    subprocess.run(["sh", "-c", f"umask 022; {to_utf_8(file, 'CP1252')}"], check=True)
    (made,) = set(tmp_path.iterdir()) - {file}
    assert (made.stat().st_mode & 0o777, made.read_text(encoding="utf-8")) == (0o600, "Gerätehalle")


def test_a_certificate_in_the_place_of_text_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(FileEncodingError) as refused:
        read_text(written(tmp_path, CERTIFICATE.der + b"\0"))
    assert refused.value.explain_cause().endswith("is not text, but binary, as a PFX is.")
    assert refused.value.explain_fix() == "Give the file of text that is meant."


@pytest.mark.parametrize(
    "text",
    [
        "\n1234\n",
        "\n\n 1234",
        "\r\n1234 \r\n\r\n",
        "1234\n\n",
        "1234 \x1a",
        "1234 \r\n\x1a",
        "1234\x1a\r\n",
        "1234 \0",
        "1234\0\0",
    ],
)
@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16"])
def test_empty_lines_around_a_secret_are_taken_away_too(tmp_path: Path, text: str, codec: str) -> None:
    path = written(tmp_path, text.encode(codec))
    subprocess.run(["sh", "-c", format_trim_command(path, path.read_bytes())], check=True)
    assert Path(trimmed(path)).read_text() == "1234"


@given(st.binary())
def test_bytes_that_are_no_text_stay(data: bytes) -> None:
    assert plain_text(b"\x30\x82" + data) == b"\x30\x82" + data


@pytest.mark.parametrize("codec", ["utf-16le", "utf-16be"])
@pytest.mark.parametrize("text", ["Pässwort-2026", "пароль-2026", "パスワード1\r\n", "é1"])
def test_utf_16_without_a_mark_is_known_by_its_zero_bytes(text: str, codec: str) -> None:
    assert decode_text(text.encode(codec)) == text


def test_text_of_8_bits_with_a_nul_is_no_utf_16() -> None:
    for text in ("1234567", "123456", "10203040506"):
        assert plain_text(text.encode() + b"\0") == text.encode()
    for text in ("hunter2\0four", "Ölkanne"):
        raw = text.encode("cp1252") + b"\0"
        assert plain_text(raw) == raw


def test_of_a_secret_no_encoding_is_guessed(tmp_path: Path) -> None:
    (file := tmp_path / "secret").touch(0o600)
    for raw in ("大阪工場の鍵".encode("utf-16le"), "大阪工場の鍵".encode("utf-16be"), b"\x9aberpasswort"):
        file.write_bytes(raw)
        with pytest.raises(PinFileError) as refused:
            Pin.from_file(file)
        assert refused.value.explain_fix() == "Save it as UTF-8 in the editor that created it."


def test_half_a_letter_of_utf_16_is_no_text() -> None:
    with pytest.raises(UnicodeDecodeError):
        decode_text(codecs.BOM_UTF16_LE + b"a")


SOURCE = Path(birthmark.__file__).parent
OWN = {
    "what Birthmark wrote": {
        "cli/env.py",
        "cli/output/command_refusal_journal.py",
        "cli/simulated_chip_list.py",
        "cli/service_installer.py",
        "operator_api/html_page_elements.py",
        "operator_api/client/vendor_tool_environment.py",
        "secure_elements/softhsm_element.py",
        "server/mqtt_and_http_dispatch.py",
        "server/backup/restore.py",
        "store/schema_migration.py",
        "swarm/identities.py",
        "swarm/local_server_registration.py",
        "testing/cloud.py",
    },
    "what the system tells": {
        "agent/state.py",
        "doctor/local_server_checks.py",
        "cli/output/machine_specific_hints.py",
        "flock.py",
        "swarm/runner.py",
    },
    "within a program under chip exec": {
        "secure_elements/exec/loopback_tls_proxy.py",
        "secure_elements/hook/sitecustomize.py",
    },
    "a file that is read line by line": {
        "manifests/certificate_lists.py",
        "server/backup/audit_export_verification.py",
    },
}
BYPASS = re.compile(r"\.read_text\(|read_bytes\(\)\.decode|utf-8-sig|tomllib\.load\b|json\.load\(")


def test_no_reader_decodes_a_file_by_itself() -> None:
    found = {str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py") if BYPASS.search(path.read_text())}
    assert {name for name in found if not name.startswith("demo/")} == set().union(*OWN.values())


DIRECT = re.compile(r"parse_pem\([^)]*read_bytes\(")


def test_no_certificate_file_of_a_user_is_read_as_pem_alone() -> None:
    found = {str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py") if DIRECT.search(path.read_text())}
    assert {name for name in found if not name.startswith("demo/")} == set()


@pytest.mark.parametrize("padding", [b"\0\0\0", b"\x1a", b"\x1a\r\n", b"\r\n\x1a\r\n\0"])
def test_what_programs_put_behind_a_text_is_none_of_it(padding: bytes) -> None:
    assert plain_text(b'{"a": 1}' + padding).strip() == b'{"a": 1}'
    assert plain_text(b"one\r\ntwo\r\n" + padding).split() == [b"one", b"two"]


@pytest.mark.parametrize("codec", ["utf-32", "utf-32-be"])
def test_utf_32_is_read_by_its_mark(codec: str) -> None:
    raw = "site = 'Gerätehalle'\n".encode(codec)
    assert decode_text(raw if codec == "utf-32" else codecs.BOM_UTF32_BE + raw) == "site = 'Gerätehalle'\n"


def test_utf_16_behind_utf_8_is_told_as_such_and_mended_by_no_command(tmp_path: Path) -> None:
    raw = b"host = 'a'\r\n" + "site = 'b'\r\n".encode("utf-16le")
    with pytest.raises(TomlError, match=r"line 2: .*PowerShell appends UTF-16"):
        parse(decode_text(raw))
    assert to_lines(tmp_path / "x.toml", raw.decode()) == ""
    assert "in line 2" in not_utf_8(raw + b"\xe4")


@pytest.mark.parametrize("secret", ["\u200epassword", "password\u200e", "\u00a0\u200epassword\u00a0"])
def test_a_secret_with_what_nobody_sees_around_it_is_refused_and_trimmed_by_the_command(
    tmp_path: Path, secret: str
) -> None:
    (file := tmp_path / "secret").touch(0o600)
    file.write_text(secret + "\r\n", encoding="utf-8")
    with pytest.raises(PinFileError) as refused:
        Pin.from_file(file).check_blanks()
    subprocess.run(["sh", "-c", refused.value.explain_fix().split("`")[1]], check=True)
    assert (tmp_path / "secret.trimmed").read_text() == "password"
