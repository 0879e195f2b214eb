"""Certificates in a directory, a ZIP or a table are verified and enrolled by the commands for a supplier's manifest."""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.server.servers import RunningServer, a_new_server

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.mark.parametrize("form", ["directory", "zip", "csv"])
def test_a_list_of_certificates_is_enrolled_like_a_manifest(server: RunningServer, tmp_path: Path, form: str) -> None:
    made, files = tmp_path / "made", tmp_path / "files"
    server.run("manifest", "create", "--out", str(made), "--count", "4")
    root = ["--trust-root", str(made / "root.pem")]
    trust = ["--signer", str(made / "signer.pem"), *root]
    server.run("manifest", "extract", str(made / "manifest.json"), *trust, "--out", str(files), "--chain")
    listed = files
    if form == "zip":
        listed = Path(shutil.make_archive(str(tmp_path / "list"), "zip", files))
    if form == "csv":
        listed = tmp_path / "list.csv"
        with listed.open("w", newline="") as file:
            rows = [(one.stem, one.read_text()) for one in files.iterdir()]
            csv.writer(file).writerows([("uid", "certificate"), *rows])
    assert len(server.rows("manifest", "verify", str(listed), *root)) == 4
    assert len(server.rows("manifest", "show", str(listed), *root)) == 4
    outcomes = server.rows("device", "enroll-list", str(listed), *root)
    assert {row["outcome"] for row in outcomes} == {"created"}
    assert {row["device"] for row in outcomes} == {one.stem for one in files.iterdir()}


def test_a_table_s_own_columns_go_where_a_template_says(server: RunningServer, tmp_path: Path) -> None:
    listed, template = tmp_path / "list.csv", tmp_path / "site.toml"
    server.run("ca", "init", "--name", "Pumps", "--dir", str(tmp_path / "ca"))
    server.run("ca", "issue", "pump-1", "--dir", str(tmp_path / "ca"), "--out-dir", str(tmp_path))
    with listed.open("w", newline="") as file:
        csv.writer(file).writerows([("certificate", "Site"), ((tmp_path / "pump-1.cert.pem").read_text(), "Osaka")])
    template.write_text('[aws.attributes]\nsite = "{csv.Site}"\nline = "{csv.line}"\n')
    line = [str(listed), "--trust-root", str(tmp_path / "ca" / "root.pem"), "--template", str(template), "--to", "aws"]
    assert "its table has site" in server.attempt("device", "enroll-list", *line).stderr
    template.write_text('[aws.attributes]\nsite = "{csv.Site}"\n')
    server.run("device", "enroll-list", *line)
    template.write_text('[aws.attributes]\nsite = "Kyoto"\n')
    told = server.attempt("device", "enroll-list", *line, "--dry-run", "--update")
    assert "Osaka -> Kyoto" in told.stderr


def test_a_rehearsal_s_bundle_is_verified_and_enrolled(server: RunningServer, tmp_path: Path) -> None:
    made = json.loads(
        server.run("manifest", "create", "--bundle", "--out", str(tmp_path / "r"), "--count", "3", "--json").stdout
    )
    line = [made["bundle"], "--station", made["station"], "--trust-root", made["root"]]
    assert {row["root"] for row in server.rows("manifest", "verify", *line)} != {None}
    assert [row["outcome"] for row in server.rows("device", "enroll-list", *line)] == ["created"] * 3
    again = server.attempt("manifest", "create", "--bundle", "--out", str(tmp_path / "r"), "--count", "3")
    assert "cli.file_exists" in again.stderr
