"""Certificates that come in a directory, a ZIP or a table are believed by their maker's root, each by itself."""

import base64
import subprocess
import zipfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, pkcs7, pkcs12
from hypothesis import given
from hypothesis import strategies as st

from birthmark.manifests import certificate_lists
from birthmark.manifests.certificate_lists import (
    MAX_FILE_BYTES,
    ListTrust,
    count_listed,
    find_skipped_files,
    is_list,
    verify_list,
)
from birthmark.manifests.errors import ChainBrokenError, DuplicateEntryError, MalformedEntryError, ManifestError
from birthmark.manifests.manifest_entry import ManifestEntry
from birthmark.pki import certificate_profiles
from birthmark.pki.certificates import Certificate
from birthmark.pki.single_certificate_checks import CertificateNonconformingError
from support.fakes import NOON
from support.pki.pki_builders import a_ca, a_device, a_key

ROOT = a_ca("Maker Root")
SIGNER = a_ca("Maker Signer", parent=ROOT, profile=certificate_profiles.ISSUING_CA)
DEVICES = [a_device(SIGNER, f"chip-{number}", key=a_key()).certificate for number in range(3)]
TRUST = ListTrust((ROOT.certificate, SIGNER.certificate))
Write = Callable[[Path, list[tuple[str, bytes]]], Path]


def a_directory(at: Path, files: list[tuple[str, bytes]]) -> Path:
    directory = at / "certificates"
    directory.mkdir()
    for name, data in files:
        (directory / name).write_bytes(data)
    (directory / "README.txt").write_text("not a certificate, and not looked at")
    return directory


def a_zip(at: Path, files: list[tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(at / "certificates.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            archive.writestr(f"../anywhere/{name}", data)
    return at / "certificates.zip"


def a_table(at: Path, files: list[tuple[str, bytes]]) -> Path:
    lines = ["UID,Object ID,Certificate"]
    lines += [f'{name},0xF0000100,"{data.decode()}"' for name, data in files]
    (at / "export.csv").write_text("\n".join(lines) + "\n")
    return at / "export.csv"


def pem(certificate: Certificate) -> bytes:
    return certificate.pem().encode()


def verified(path: Path, trust: ListTrust = TRUST) -> list[ManifestEntry | ManifestError]:
    return list(verify_list(path, trust, NOON))


@pytest.mark.parametrize("write", [a_directory, a_zip, a_table])
def test_each_certificate_is_an_entry_with_its_root(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path, [(f"chip-{number}.pem", pem(one)) for number, one in enumerate(DEVICES)])
    found = verified(path)
    assert [entry.device_id for entry in found if isinstance(entry, ManifestEntry)] == ["chip-0", "chip-1", "chip-2"]
    assert [entry.certificate for entry in found if isinstance(entry, ManifestEntry)] == DEVICES
    assert count_listed(path) == 3


def test_directories_in_a_directory_are_read_as_those_of_a_zip_are(tmp_path: Path) -> None:
    directory = a_directory(tmp_path, [("a.pem", pem(DEVICES[0]))])
    (below := directory / "lot 2" / "tray").mkdir(parents=True)
    (below / "b.CERT").write_bytes(pem(DEVICES[1]))
    (below / "c.txt").write_bytes(pem(DEVICES[2]))
    subprocess.run(["python3", "-m", "zipfile", "-c", "../all.zip", "."], cwd=directory, check=True)
    for path in (directory, tmp_path / "all.zip"):
        assert sorted(one.device_id for one in verified(path) if isinstance(one, ManifestEntry)) == ["chip-0", "chip-1"]
        assert sorted(find_skipped_files(path)) == ["README.txt", "lot 2/tray/c.txt"]


def test_no_link_leads_out_of_a_directory(tmp_path: Path) -> None:
    directory = a_directory(tmp_path, [("a.pem", pem(DEVICES[0]))])
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.pem").write_bytes(pem(DEVICES[1]))
    for name, target in (("b.pem", "../elsewhere/b.pem"), ("all", "../elsewhere"), ("loop.pem", "loop.pem")):
        (directory / name).symlink_to(target)
    (directory / "c.pem").symlink_to("a.pem")
    assert [one.code if isinstance(one, ManifestError) else one.device_id for one in verified(directory)] == [
        "chip-0",
        "manifest.duplicate",
    ]
    assert find_skipped_files(directory) == ["README.txt", "all", "b.pem", "loop.pem"]


def test_a_directory_is_read_to_a_depth_and_a_number_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate_lists, "MAX_DEPTH", 1)
    directory = a_directory(tmp_path, [("a.pem", pem(DEVICES[0]))])
    (directory / "1" / "2").mkdir(parents=True)
    (directory / "1" / "2" / "b.pem").write_bytes(pem(DEVICES[1]))
    assert (count_listed(directory), find_skipped_files(directory)) == (1, ["1/2", "README.txt"])
    monkeypatch.setattr(certificate_lists, "MAX_DIRECTORY_FILES", 1)
    with pytest.raises(MalformedEntryError, match="more than 1 files"):
        verified(directory)


@pytest.mark.parametrize("line", ["sep=,", "SEP=,\r", "sep=;"])
def test_the_line_that_tells_excel_the_separator_is_skipped(tmp_path: Path, line: str) -> None:
    table = a_table(tmp_path, [("chip-0", pem(DEVICES[0]))])
    table.write_text(f"{line}\n{table.read_text().replace(',', line.strip()[-1])}")
    assert [entry.device_id for entry in verified(table) if isinstance(entry, ManifestEntry)] == ["chip-0"]


@pytest.mark.parametrize("line", ["#TYPE System.Management.Automation.PSCustomObject", "#TYPE Chip\r"])
def test_the_line_of_the_type_that_powershell_writes_is_skipped(tmp_path: Path, line: str) -> None:
    table = a_table(tmp_path, [("chip-0", pem(DEVICES[0]))])
    table.write_text(f"{line}\n{table.read_text()}")
    assert [entry.device_id for entry in verified(table) if isinstance(entry, ManifestEntry)] == ["chip-0"]


KEY = a_key()
PARSED = a_device(SIGNER, "chip-9", key=KEY).certificate.parsed
PFX = pkcs12.serialize_key_and_certificates(None, KEY, PARSED, None, NoEncryption())
WRAPPED = {
    "a.pfx": (PFX, "openssl pkcs12 -in {} -nokeys"),
    "a.p12": (PFX, "openssl pkcs12 -in {} -nokeys"),
}


@pytest.mark.parametrize(("name", "encoding"), [("a.p7b", Encoding.DER), ("a.p7c", Encoding.PEM)])
def test_a_certificate_in_pkcs7_is_an_entry(tmp_path: Path, name: str, encoding: Encoding) -> None:
    with_root = pkcs7.serialize_certificates([SIGNER.certificate.parsed, PARSED], encoding)
    (entry,) = verified(a_directory(tmp_path, [(name, with_root)]))
    assert isinstance(entry, ManifestEntry)
    assert entry.device_id == "chip-9"


@pytest.mark.parametrize(("name", "content", "unpack"), [(name, *one) for name, one in WRAPPED.items()], ids=WRAPPED)
def test_wrapped_certificates_among_others_are_not_left_out(
    tmp_path: Path, name: str, content: bytes, unpack: str
) -> None:
    refused, entry = verified(a_directory(tmp_path, [(name, content), ("b.pem", pem(DEVICES[1]))]))
    assert isinstance(entry, ManifestEntry)
    assert isinstance(refused, ManifestError)
    assert f"{name} contains no valid certificate" in refused.explain_cause()
    assert unpack.format(tmp_path / "certificates" / name) in refused.explain_fix()


def test_a_wrapped_certificate_in_an_archive_is_unpacked_first(tmp_path: Path) -> None:
    archive = a_zip(tmp_path, [("a.pfx", PFX)])
    (refused,) = verified(archive)
    assert isinstance(refused, ManifestError)
    into = archive.with_suffix("")
    steps = [f"`unzip -n {archive} -d {into} && cd {into}`", "openssl pkcs12 -in anywhere/a.pfx -nokeys"]
    assert [step for step in steps if step not in refused.explain_fix()] == []


@pytest.mark.parametrize("write", [a_directory, a_zip, a_table])
def test_what_is_wrong_with_one_is_told_and_the_others_are_read(tmp_path: Path, write: Write) -> None:
    foreign = a_device(a_ca("Another Maker"), "chip-9", key=a_key()).certificate
    bad = {
        "b.pem": (pem(foreign), "manifest.chain_broken"),
        "c.pem": (b"no certificate", "manifest.malformed"),
        "d.pem": (pem(SIGNER.certificate), "manifest.malformed"),
        "e.pem": (pem(DEVICES[0]), "manifest.duplicate"),
        "g.pem": (pem(DEVICES[1]) + pem(DEVICES[2]), "manifest.malformed"),
        "f.pem": (b"A" * (MAX_FILE_BYTES + 1), "manifest.malformed"),
    }
    if write is a_table:
        bad.pop("f.pem")  # a table ends where a line is too long
    files = [("a.pem", pem(DEVICES[0])), *((name, data) for name, (data, _) in bad.items()), ("z.pem", pem(DEVICES[1]))]
    first, *others, last = verified(write(tmp_path, files))
    assert isinstance(first, ManifestEntry)
    assert isinstance(last, ManifestEntry)
    assert [one.code for one in others if isinstance(one, ManifestError)] == [code for _, code in bad.values()]
    assert [one.facts["place"] for one in others if isinstance(one, ManifestError)] == [
        str(place) for place in range(2, 2 + len(bad))
    ]


def test_a_ca_that_breaks_the_rfc_is_mended_by_no_other_root() -> None:
    error = CertificateNonconformingError(subject="CN=Old Root", detail="a CA without subjectKeyIdentifier")
    refused = ChainBrokenError.by(error, "chip-1")
    assert "without subjectKeyIdentifier" in refused.explain_cause()
    assert "reissue that certificate" in refused.explain_fix()
    assert "--trust-root" not in refused.explain_fix()


def test_a_chip_whose_name_differs_in_letter_case_alone_is_the_same_one(tmp_path: Path) -> None:
    again = a_device(SIGNER, "CHIP-0", key=a_key()).certificate
    first, second = verified(a_directory(tmp_path, [("a.pem", pem(DEVICES[0])), ("b.pem", pem(again))]))
    assert isinstance(first, ManifestEntry)
    assert isinstance(second, DuplicateEntryError)


def test_a_table_with_two_columns_of_certificates_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("certificate,pem\na,b\n")
    with pytest.raises(ManifestError) as refused:
        verified(path)
    assert "certificate, pem" in refused.value.explain_cause()


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_table_may_be_parted_as_spreadsheets_do(tmp_path: Path, separator: str) -> None:
    (tmp_path / "t.csv").write_text(f'serial{separator}certificate\nS1{separator}"{DEVICES[0].pem()}"\n')
    (entry,) = verified(tmp_path / "t.csv")
    assert isinstance(entry, ManifestEntry)


def test_what_a_table_says_in_further_columns_is_kept_for_templates(tmp_path: Path) -> None:
    head = "Serial,Site Name,certificate,note,Note,"
    (tmp_path / "t.csv").write_text(f'{head}\nS1, Osaka ,"{DEVICES[0].pem()}",a,b,c\nS2\n')
    entry, _ = verified(tmp_path / "t.csv")
    assert isinstance(entry, ManifestEntry)
    assert dict(entry.columns) == {"serial": "S1", "site_name": "Osaka"}, "what is named twice, or not, says nothing"


def test_a_quotation_mark_that_is_not_closed_takes_no_rows_with_it(tmp_path: Path) -> None:
    path, pem = tmp_path / "t.csv", DEVICES[0].pem()
    whole = f'S1;"{pem}";hall 1\n'
    for broken in (f'S2;"{pem}";"3/8 inch\n', f'S2;"{pem};plain\n'):
        for others in (whole * 3, f'{whole}S3;"{pem}";"hall 4\n{whole}', f'S3;{"A" * 99};3/8"\n'):
            path.write_text(f"serial;certificate;note\n{whole}{broken}{others}")
            with pytest.raises(MalformedEntryError) as refused:
                verified(path)
            assert "quotation mark" in refused.value.explain_cause()


def test_a_note_of_several_lines_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f'serial;certificate;note\nS1;"{DEVICES[0].pem()}";"hall 1\nnear; the door"\n')
    (entry,) = verified(tmp_path / "t.csv")
    assert not isinstance(entry, Exception)


def test_a_table_without_the_column_is_told_what_it_has_and_what_to_write(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("Serial,Device PEM\n")
    with pytest.raises(ManifestError) as refused:
        verified(tmp_path / "t.csv")
    assert "has the columns serial, device_pem, but none of certificate, cert, pem" in refused.value.explain_cause()
    assert 'call the one column of certificates "certificate"' in refused.value.explain_fix()


@pytest.mark.parametrize("written_in", ["utf-16", "utf-8-sig"])
def test_a_table_with_a_mark_of_how_it_is_written_is_read(tmp_path: Path, written_in: str) -> None:
    text = f'Serial\tSite\tcertificate\nS1\t\u5927\u962a\t"{DEVICES[0].pem()}"\n'
    (tmp_path / "t.csv").write_text(text, encoding=written_in)
    (entry,) = verified(tmp_path / "t.csv")
    assert isinstance(entry, ManifestEntry)
    assert dict(entry.columns)["site"] == "\u5927\u962a"


@pytest.mark.parametrize(
    ("written_in", "site"),
    [
        ("CP1252", "K\u00f6ln"),
        ("CP1252", "Gr\u00f6\u00dfe \u00e9\u00e8"),
        ("CP932", "\u5927\u962a"),
        ("CP932", "\u30c6\u30b9\u30c8"),
    ],
)
def test_a_table_as_excel_writes_it_is_told_how_to_become_utf_8(tmp_path: Path, written_in: str, site: str) -> None:
    (tmp_path / "t.csv").write_text(f"serial,certificate,site\nS1,,{site}\n", encoding=written_in)
    with pytest.raises(ManifestError) as refused:
        verified(tmp_path / "t.csv")
    assert f'"{site.split(maxsplit=1)[0]}" in {written_in}' in refused.value.explain_cause()
    command = refused.value.explain_fix().split("`")[1]
    subprocess.run(["sh", "-c", command], check=True)
    (new,) = set(tmp_path.iterdir()) - {tmp_path / "t.csv"}
    assert is_list(new, b"")
    assert site in new.read_text(encoding="utf-8")


@pytest.mark.parametrize("coded", ["utf-8", "utf-16"])
def test_a_table_as_excel_saves_unicode_text_is_read(tmp_path: Path, coded: str) -> None:
    path = tmp_path / "t.txt"
    path.write_text(f'Serial\tcertificate\nS1\t"{DEVICES[0].pem()}"\n', encoding=coded)
    assert is_list(path, path.read_bytes()[:512])
    assert [isinstance(one, ManifestEntry) for one in verified(path)] == [True]


@pytest.mark.parametrize(
    "begin",
    [
        b'[{"a"',
        b'{"format":',
        b'[\t{"uid": "1"}]',
        b"-----BEGIN CERT",
        '[{"a"'.encode("utf-16"),
        b"Certificate:\n    Data:\n",
        b"subject=CN = Cert Signer, O = certificate Ltd\n",
        a_device(SIGNER, "certificate").certificate.der,
    ],
)
def test_other_text_is_no_table_whatever_its_file_is_called(begin: bytes) -> None:
    assert not is_list(Path("t.txt"), begin)


def test_a_row_with_a_nul_is_refused_and_the_others_are_read(tmp_path: Path) -> None:
    table = a_table(tmp_path, [("chip\0-0", pem(DEVICES[0])), ("chip-1", pem(DEVICES[1]))])
    refused, entry = verified(table)
    assert isinstance(refused, MalformedEntryError)
    assert "chip-0 has a cell with U+0000" in refused.explain_cause()
    assert isinstance(entry, ManifestEntry)


def test_a_row_of_blanks_is_none(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f'serial;site;certificate\nS1;x;"{DEVICES[0].pem()}"\n;;\n ; ;\n')
    assert [isinstance(one, ManifestEntry) for one in verified(tmp_path / "t.csv")] == [True]


@pytest.mark.parametrize(
    "line", ["HostName=h;SharedAccessKeyName=n;SharedAccessKey=c2VjcmV0c2VjcmV0", "MIIJqgIBAzCC" * 9]
)
def test_a_first_line_that_is_no_line_of_names_is_not_shown(tmp_path: Path, line: str) -> None:
    (tmp_path / "t.csv").write_text(f"{line}\n")
    with pytest.raises(ManifestError) as refused:
        verified(tmp_path / "t.csv")
    assert "is not a header with one of the columns" in refused.value.explain_cause()
    assert not [word for word in ("sharedaccesskey", "c2vj", "miij") if word in refused.value.explain_cause().lower()]


def test_a_table_without_names_does_not_show_its_first_certificate_as_one(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f'S1,"{DEVICES[0].pem()}"\n')
    with pytest.raises(ManifestError) as refused:
        verified(tmp_path / "t.csv")
    assert len(refused.value.explain_cause()) < 200


def test_a_workbook_is_told_to_be_saved_as_a_table(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "t.xlsx", "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    with pytest.raises(ManifestError) as refused:
        verified(tmp_path / "t.xlsx")
    assert "Excel workbook" in refused.value.explain_cause()
    assert "CSV UTF-8" in refused.value.explain_fix()


def test_a_wrong_root_is_one_reason_whatever_the_devices_are_called(tmp_path: Path) -> None:
    listed = a_directory(tmp_path, [(f"{number}.pem", pem(device)) for number, device in enumerate(DEVICES)])
    found = verified(listed, ListTrust((a_ca("Another Root").certificate,)))
    said = {one.facts["detail"] for one in found if isinstance(one, ManifestError)}
    assert said == {"the issuer 'CN=Maker Signer' is not one of the given roots and does not chain to one"}


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    path = a_directory(tmp_path, [("a.pem", pem(DEVICES[0]))])
    (found,) = verify_list(path, TRUST, NOON + timedelta(days=100 * 365))
    assert isinstance(found, ManifestError)


@pytest.mark.parametrize("order", [1, -1], ids=["leaf first", "root first"])
def test_a_chain_in_the_file_needs_the_root_alone(tmp_path: Path, order: int) -> None:
    path = a_directory(tmp_path, [("a.pem", b"".join([pem(DEVICES[0]), pem(SIGNER.certificate)][::order]))])
    (found,) = verified(path, ListTrust((ROOT.certificate,)))
    assert isinstance(found, ManifestEntry)
    assert found.issuer == SIGNER.certificate


def test_a_table_may_have_base64_instead_of_pem(tmp_path: Path) -> None:
    path = tmp_path / "export.csv"
    path.write_text(f"\ufeffcert\n{base64.b64encode(DEVICES[0].der).decode()}\n")
    assert [entry.device_id for entry in verified(path) if isinstance(entry, ManifestEntry)] == ["chip-0"]


@pytest.mark.parametrize("comment", [b"", b"a comment"])
@pytest.mark.parametrize("count", [300, 70_000], ids=["32 bits", "64 bits"])
def test_the_directory_of_a_zip_is_bounded_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, comment: bytes
) -> None:
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            archive.writestr(zipfile.ZipInfo(f"{number}.txt"), b"")
        archive.comment = comment
    monkeypatch.setattr(certificate_lists, "MAX_ZIP_DIRECTORY_BYTES", 10_000)
    monkeypatch.setattr(zipfile, "ZipFile", None)
    with pytest.raises(MalformedEntryError, match="unpack it"):
        count_listed(path)


@pytest.mark.parametrize("how", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_whose_packed_data_is_broken_cannot_be_read(tmp_path: Path, how: int) -> None:
    path, name = tmp_path / "certificates.zip", b"a.pem"
    with zipfile.ZipFile(path, "w", how) as archive:
        archive.writestr(name.decode(), pem(DEVICES[0]))
    raw = bytearray(path.read_bytes())
    at = raw.index(name) + len(name) + (12 if how == zipfile.ZIP_LZMA else 0)
    raw[at : at + 20] = b"\xff" * 20
    path.write_bytes(raw)
    with pytest.raises(ManifestError, match="the ZIP cannot be read"):
        list(verify_list(path, TRUST, NOON))


def test_a_zip_bomb_is_read_no_further_than_a_certificate_may_go(tmp_path: Path) -> None:
    path = a_zip(tmp_path, [("bomb.pem", bytes(200 * 1024 * 1024)), ("a.pem", pem(DEVICES[0]))])
    first, second = verified(path)
    assert isinstance(first, ManifestError)
    assert "larger than" in first.explain_cause()
    assert isinstance(second, ManifestEntry)


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.csv", b"x,y\n1,2\n"), ("b.csv", b"\xff\xfe\x00"), ("c.zip", b"PK\x03\x04broken"), ("d.csv", b"")],
)
def test_a_list_that_cannot_be_read_says_so(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ManifestError):
        verified(tmp_path / name)


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    for candidate in (data, b"cert\n" + data, b"PK\x03\x04" + data):
        path.write_bytes(candidate)
        try:
            assert all(isinstance(one, ManifestEntry | ManifestError) for one in verified(path))
        except ManifestError as error:
            assert error.explain_cause()


@pytest.mark.parametrize("first", ["\r\n\r\n", '"sep=;"\r\n', "sep = ;\r\n", "\u200e", "\r\nsep=;\r\n"])
def test_what_stands_before_the_names_of_a_table_is_passed_over(tmp_path: Path, first: str) -> None:
    line = pem(DEVICES[0]).decode().replace("\n", "\\n")
    (path := tmp_path / "x.csv").write_text(f"{first}certificate;site\r\n{line};a\r\n", encoding="utf-8")
    assert [type(one) for one in verified(path)] == [ManifestEntry]


def test_a_zip_of_a_list_is_told_to_be_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(path := tmp_path / "x.zip", "w") as archive:
        archive.writestr("manifest.json", "[]")
    with pytest.raises(MalformedEntryError, match=r"no certificates, and manifest\.json") as refused:
        verified(path)
    assert f"`unzip -n {path} -d {tmp_path / 'x'}`" in refused.value.explain_fix()
