"""One table of settings: what is read, the page, and what `config list --doc` prints are the same."""

import re
from pathlib import Path

import pytest

from birthmark.agent.config import parse_config
from birthmark.agent.config.parser import IGNORED
from birthmark.agent.config.setting_catalog import every_setting
from birthmark.agent.config.toml_tables import Table
from support.tools_pages import the_page_of

FILE = Path("/etc/aziot/config.toml")
CREDENTIALS = """
username = "u"
password = "p"
identity_cert = "file:///c"
identity_pk = "file:///k"
"""
ISSUED = """
method = "est"
common_name = "n"
url = "https://e/.well-known/est"
[{table}.auto_renew]
rotate_key = true
threshold = "80%"
retry = "4%"
"""
EST = """
[cert_issuance.est]
trusted_certs = ["file:///t"]
[cert_issuance.est.auth]
username = "u"
password = "p"
[cert_issuance.est.urls]
default = "https://e/.well-known/est"
[cert_issuance.est.identity_auto_renew]
rotate_key = true
threshold = "80%"
retry = "4%"
"""
DPS = '[provisioning]\nsource = "dps"\nglobal_endpoint = "https://d"\nid_scope = "s"\npayload = { uri = "file:///p" }\n'
MANUAL = '[provisioning]\nsource = "manual"\niothub_hostname = "h"\ndevice_id = "d"\n[provisioning.authentication]\n'
AWS = '[provisioning]\nsource = "aws"\nendpoint = "h"\nthing_name = "d"\n[provisioning.authentication]\n'
JOBS = """
[jobs]
renew = true
[jobs.run.NAME]
command = ["/c"]
[jobs.replace.NAME]
path = "file:///f"
urls = ["https://h/"]
[jobs.restart]
command = ["/c"]
"""
REST = """
[aziot_keys]
pkcs11_lib_path = "/l"
[preloaded_keys]
NAME = "file:///k"
[preloaded_certs]
NAME = "file:///c"
[localid]
domain = "d"
"""


def issued(table: str) -> str:
    return f"\n[{table}]{ISSUED.format(table=table)}"


FILES = (
    DPS
    + '[provisioning.attestation]\nmethod = "x509"\n'
    + issued("provisioning.attestation.identity_cert")
    + issued("edge_ca")
    + issued("cert_issuance.local_ca.cert")
    + EST
    + REST
    + "".join(f"[{name}]\n" for name in IGNORED),
    DPS
    + '[provisioning.attestation]\nmethod = "symmetric_key"\nregistration_id = "r"\n'
    + 'symmetric_key = { value = "AAAA" }\n',
    DPS
    + '[provisioning.attestation]\nmethod = "tpm"\nregistration_id = "r"\n'
    + '[tpm]\ntcti = "swtpm"\nauth_key_index = 0x10_10_10\n'
    + '[tpm.hierarchy_authorization]\nendorsement = "a"\nowner = "b"\n',
    MANUAL + 'method = "sas"\ndevice_id_pk = { uri = "file:///k" }\n[edge_ca]\ncert = "file:///c"\npk = "file:///k"\n',
    AWS + 'method = "x509"\nidentity_cert = "file:///c"\nidentity_pk = "file:///k"\n' + JOBS,
    MANUAL + 'method = "x509"\n' + issued("provisioning.authentication.identity_cert") + EST,
    '[provisioning]\nsource = "manual"\nconnection_string = "HostName=h;DeviceId=d;SharedAccessKey=AAAA"\n[edge_ca]\n'
    "[cert_issuance.local_ca]\n" + 'cert = "file:///c"\npk = "file:///k"\n',
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Every key that the reader asks for, in files that bring it everywhere."""
    found: set[str] = set()
    take = Table.take

    def noted(self: Table, name: str, read: object) -> object:
        found.add(".".join((*self.path, name)))
        return take(self, name, read)  # type: ignore[arg-type]  # whatever it was given

    monkeypatch.setattr(Table, "take", noted)
    for text in FILES:
        parse_config(FILE, text)
    return found


def test_the_table_is_what_the_reader_asks_for(asked: set[str]) -> None:
    listed = {one.key for one in every_setting()}
    read = {re.sub(r"(?<=est\.urls\.)default", "NAME", key) for key in asked}
    tables = {key for key in read if any(other.startswith(f"{key}.") for other in listed)}
    assert not read - tables - listed
    assert not listed - read - set(IGNORED)


def test_the_page_is_the_table() -> None:
    page = the_page_of("make_agent_config")
    assert (Path(__file__).parents[3] / "docs" / "reference" / "agent-config.md").read_text() == page
