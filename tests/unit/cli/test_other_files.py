"""A file of another kind, or with characters that look like others, is told as what it is."""

import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from cryptography.hazmat.primitives.serialization import NoEncryption, pkcs12

from birthmark.audit.signed_heads import HeadInvalidError, parse_heads
from birthmark.cli.input_files import FileEncodingError, read_text
from birthmark.cli.login import login
from birthmark.errors import BirthmarkError
from birthmark.fleet.enrollment_template import parse_template
from birthmark.manifests.errors import MalformedEntryError
from birthmark.manifests.manifest_chunks import count_of
from birthmark.operator_api.client.saved_login import InvitationInvalidError, read_invitation
from birthmark.server.settings import read_settings
from birthmark.swarm.scenario.parser import parse_scenario
from support.pki.pki_builders import a_device, a_key

KEY = a_key()
DEVICE = a_device(key=KEY)
PFX = pkcs12.serialize_key_and_certificates(None, KEY, DEVICE.certificate.parsed, None, NoEncryption())


def test_a_pfx_in_the_place_of_text_is_told(tmp_path: Path) -> None:
    (path := tmp_path / "policy.json").write_bytes(PFX)
    with pytest.raises(FileEncodingError) as refused:
        read_text(path)
    assert "it is PKCS#12 (PFX)" in refused.value.explain_cause()
    assert "iconv" not in refused.value.explain_fix()


LISTS = {
    "a private key": DEVICE.key_pem.encode(),
    "PKCS#12 (PFX)": PFX,
    "a certificate": DEVICE.certificate.der,
}


@pytest.mark.parametrize("kind", LISTS)
def test_what_is_no_list_of_chips_is_told(kind: str) -> None:
    with pytest.raises(MalformedEntryError, match="not a list") as refused:
        count_of(io.BytesIO(LISTS[kind]))
    assert f"the file is {kind}, not a list" in str(refused.value)


@pytest.mark.parametrize(
    ("line", "told"),
    [({"chain": "main", "action": "x"}, "it has audit rows"), ({"digest": "00"}, "it has no 'key'")],
)
def test_what_is_no_head_of_a_chain_is_told_in_words(line: dict[str, str], told: str) -> None:
    with pytest.raises(HeadInvalidError) as refused:
        parse_heads(json.dumps(line).encode())
    assert told in refused.value.explain_cause()


@pytest.mark.parametrize(
    ("where", "told"),
    [("\u201chttps://hub.example:8443\u201d", "U.201C"), ("https://hub.example:8443\u00a0", "U.00A0")],
)
def test_a_character_in_the_place_to_log_in_is_told(where: str, told: str) -> None:
    with pytest.raises(typer.BadParameter, match=told):
        login(where)


def test_a_character_in_an_invitation_is_told(tmp_path: Path) -> None:
    (path := tmp_path / "anna.invitation").write_text("{\u201curl\u201d: 1}", encoding="utf-8")
    with pytest.raises(InvitationInvalidError) as refused:
        read_invitation(path)
    assert "U+201C" in refused.value.explain_cause()


def scenario(file: Path, text: str) -> None:
    parse_scenario(file, text)


def settings(file: Path, _text: str) -> None:
    read_settings(file, {})


def template(file: Path, text: str) -> None:
    parse_template(text, file)


@pytest.mark.parametrize("read", [scenario, settings, template])
def test_lines_that_cr_alone_ends_are_told_with_the_command_that_ends_them(
    tmp_path: Path, read: Callable[[Path, str], None]
) -> None:
    (file := tmp_path / "a file.toml").write_bytes(b"# one\r[a]\rb = 1\r")
    with pytest.raises(BirthmarkError) as refused:
        read(file, file.read_bytes().decode())
    command = next(one for one in refused.value.explain_fix().split("`") if "tr '" in one)
    subprocess.run(["sh", "-c", command], check=True)
    assert (tmp_path / "a file.lines.toml").read_bytes() == b"# one\n[a]\nb = 1\n"
