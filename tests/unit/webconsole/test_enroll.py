"""A form with files, taken in any pieces, within its bounds; and reports that no spreadsheet takes for formulas."""

import asyncio
import base64
import csv
import io
import json
import os
import shutil
import time
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, pkcs12
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from birthmark import flock
from birthmark.errors import ForbiddenError
from birthmark.manifests.bundle import line_format
from birthmark.manifests.errors import ManifestError
from birthmark.operator_api.api_router import told
from birthmark.pki.certificates import CertificateInvalidError
from birthmark.webconsole.enroll import multipart
from birthmark.webconsole.enroll.enrollment_worker import EnrollmentWork
from birthmark.webconsole.enroll.limits import MOST_OF_ONE
from birthmark.webconsole.enroll.multipart import LIST, SIGNERS, TRUST, DropRefusedError, Receiver, UploadedFile
from birthmark.webconsole.enroll.page import _command, as_csv
from birthmark.webconsole.enroll.parser import UploadKind, rows_of, sort
from birthmark.webconsole.enroll.uploads import DropGoneError, TooManyDropsError, Upload, Uploads, UploadState
from birthmark.webconsole.i18n import PageLocale, reader
from birthmark.webconsole.rollover import gates_of, place_of, share_of
from support.fakes import NOON, FakeClock, SeededEntropy
from support.pki.pki_builders import a_ca, a_device, a_key

KIND = "multipart/form-data; boundary=x"


def part(name: str, content: bytes, file: str | None = None) -> bytes:
    named = f'; filename="{file}"' if file is not None else ""
    return f'--x\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--x--\r\n"


def taken(directory: Path, body: bytes, size: int = 1 << 20, content_type: str = KIND) -> Receiver:
    receiver = Receiver(directory, lambda _fields: None)
    receiver.begin(content_type)
    try:
        for at in range(0, len(body), size):
            receiver.take(body[at : at + size])
    finally:
        receiver.close()
    return receiver


@given(size=st.integers(1, 300), content=st.binary(max_size=400))
def test_a_form_is_the_same_in_any_pieces(tmp_path_factory: pytest.TempPathFactory, size: int, content: bytes) -> None:
    body = form(part("csrf", b"token"), part("files", content, "a.pem"), part("roots", b"r", "b.pem"))
    if b"\r\n--x" in content:
        return
    found = taken(tmp_path_factory.mktemp("form"), body, size)
    assert found.is_whole
    assert found.fields == {"csrf": "token"}
    assert [(one.kind, one.name, one.path.read_bytes()) for one in found.files] == [
        ("files", "a.pem", content),
        ("roots", "b.pem", b"r"),
    ]
    assert all(one.path.stat().st_mode & 0o077 == 0 for one in found.files)


def test_nothing_is_kept_of_files_before_the_form_was_looked_at(tmp_path: Path) -> None:
    class NotOursError(ForbiddenError):
        code = "test.not_ours"

    def check(fields: dict[str, str]) -> None:
        if fields.get("csrf") != "token":
            raise NotOursError

    receiver = Receiver(tmp_path, check)
    receiver.begin(KIND)
    with pytest.raises(NotOursError):
        receiver.take(form(part("files", b"x", "a"), part("csrf", b"token")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "body",
    [
        form(part("files", b"x" * 2000, "a")),
        form(part("files", b"x" * 600, "a"), part("files", b"x" * 600, "b")),
        form(part("csrf", b"x" * 5000)),
        form(part("others", b"x", "a")),
        form(*(part("files", b"", "a") for _ in range(600))),
        b"--x\r\nContent-Disposition: attachment\r\n\r\nx\r\n--x--",
        b"what is this",
        b"--x\r\n" + b"a" * 5000 + b": b\r\n",
    ],
    ids=["large", "together", "field", "kind", "many", "nameless", "none", "header"],
)
def test_what_breaks_a_bound_is_refused(tmp_path: Path, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(multipart._MOST, "files", 1000)
    with pytest.raises(DropRefusedError):
        taken(tmp_path, body)


@pytest.mark.parametrize("kind", ["", "text/plain", "multipart/form-data", "application/x-www-form-urlencoded"])
def test_another_kind_of_body_is_no_form(tmp_path: Path, kind: str) -> None:
    with pytest.raises(DropRefusedError):
        taken(tmp_path, b"", content_type=kind)


def test_what_is_cut_off_is_not_whole(tmp_path: Path) -> None:
    assert not taken(tmp_path, form(part("files", b"x", "a"))[:-8]).is_whole


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "\rx"])
def test_a_cell_that_begins_a_formula_is_inert(text: str) -> None:
    row = {"place": 1, "device": text, "thumbprint": None, "says": text, "outcome": "refused", "problem": None}
    for cells in csv.reader(io.StringIO(as_csv([row]).decode(), newline="")):
        assert all(not cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in cells)


@pytest.mark.parametrize("coded", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    ("text", "kind"),
    [(line_format.BEGINNING.decode() + '1"}', UploadKind.BUNDLE), ('\r\n[{"header": 1}]', UploadKind.MANIFEST)],
)
def test_a_list_is_known_by_its_text_however_that_is_coded(
    tmp_path: Path, text: str, kind: UploadKind, coded: str
) -> None:
    (path := tmp_path / "0").write_bytes(text.encode(coded))
    assert sort([UploadedFile(LIST, "shipment", path)]).kind is kind


CERTIFICATE = a_device().certificate


@pytest.mark.parametrize("coded", ["utf-8", "utf-16"])
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (CERTIFICATE.pem(), UploadKind.CERTIFICATES),
        (f"Certificate:\n    Data:\n{CERTIFICATE.pem()}", UploadKind.CERTIFICATES),
        (base64.b64encode(CERTIFICATE.der).decode(), UploadKind.CERTIFICATES),
        ('#TYPE Chip\n"uid","certificate"\n', UploadKind.TABLE),
        ("uid\tcertificate\n", UploadKind.TABLE),
    ],
)
def test_a_text_file_is_known_by_what_it_holds(tmp_path: Path, text: str, kind: UploadKind, coded: str) -> None:
    (path := tmp_path / "0").write_bytes(text.encode(coded))
    assert sort([UploadedFile(LIST, "chips.TXT", path)]).kind is kind


def test_a_root_that_is_none_is_told_by_its_name(tmp_path: Path) -> None:
    (listed := tmp_path / "0").write_bytes(CERTIFICATE.der)
    (root := tmp_path / "1").write_bytes(b"a,b\n1,2\n")
    with pytest.raises(CertificateInvalidError, match=r"maker\.csv: Not a certificate: it is a table"):
        sort([UploadedFile(LIST, "chip.cer", listed), UploadedFile(TRUST, "maker.csv", root)])


@pytest.mark.parametrize(("name", "is_command"), [("list.csv", True), ("a list's.csv", True), ("`rm x`.csv", False)])
def test_the_command_for_a_table_in_a_code_page_is_one(tmp_path: Path, name: str, is_command: bool) -> None:
    (listed := tmp_path / "0").write_bytes("certificate,site\n,Gerätehalle\n".encode("cp1252"))
    (root := tmp_path / "1").write_text(a_ca().certificate.pem())
    dropped = sort([UploadedFile(LIST, name, listed), UploadedFile(TRUST, "ca.pem", root)])
    with pytest.raises(ManifestError) as refused:
        list(rows_of(dropped, NOON, lambda: False))
    commands = told(refused.value)["fix"].split("`")[1::2]
    assert [one.startswith("(umask 077; set -C; iconv -f CP1252") for one in commands] == [True] * is_command


def test_a_pfx_as_text_is_told_as_a_pfx(tmp_path: Path) -> None:
    (path := tmp_path / "0").write_bytes(base64.encodebytes(a_pfx()))
    (row,) = rows_of(sort([UploadedFile(LIST, "chip.txt", path)]), NOON, lambda: False)
    assert "PKCS#12" in str(row["problem"])


def test_a_self_signed_certificate_of_openssl_is_a_device_s_and_a_root_is_none(tmp_path: Path) -> None:
    (own := tmp_path / "0").write_bytes(made_by_openssl("device-1"))
    (root := tmp_path / "1").write_text(a_ca().certificate.pem())
    dropped = [UploadedFile(LIST, "device.pem", own), UploadedFile(LIST, "root.pem", root)]
    first, second = rows_of(sort(dropped), NOON, lambda: False)
    assert (first["device"], first["problem"]) == ("device-1", None)
    assert "is a CA's certificate" in str(second["problem"])


def made_by_openssl(name: str) -> bytes:
    """Return what `openssl req -x509` makes: of a CA, and without key usage."""
    key, subject = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(NOON).not_valid_after(NOON + timedelta(days=30))
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


@pytest.mark.parametrize("form", ["pem", "der"])
@pytest.mark.parametrize("coded", ["utf-8-sig", "utf-16"])
def test_a_signer_is_read_in_any_form(tmp_path: Path, form: str, coded: str) -> None:
    known = a_device().certificate
    (path := tmp_path / "1").write_bytes(known.der if form == "der" else known.pem().encode(coded))
    (listed := tmp_path / "0").write_bytes(b"[]")
    assert sort([UploadedFile(LIST, "x", listed), UploadedFile(SIGNERS, "x", path)]).signers == [known]


def test_a_list_is_called_as_it_was_uploaded(tmp_path: Path) -> None:
    (listed := tmp_path / "0000").write_bytes("certificate,site\nx,Gerätehalle\n".encode("cp1252"))
    (root := tmp_path / "0001").write_bytes(a_ca().certificate.der)
    dropped = sort([UploadedFile(LIST, "Werk 1.csv", listed), UploadedFile(TRUST, "root.cer", root)])
    with pytest.raises(ManifestError) as refused:
        list(rows_of(dropped, NOON, lambda: False))
    assert "'Werk 1.csv' > 'Werk 1.utf8.csv'" in refused.value.explain_fix()
    assert str(tmp_path) not in refused.value.explain_fix()


def zipped(name: str, content: bytes) -> bytes:
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


def a_pfx() -> bytes:
    made = a_device(key=(key := a_key())).certificate.parsed
    return pkcs12.serialize_key_and_certificates(None, key, made, None, NoEncryption())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("chips 1.json", '[{"payload": ""}]'.encode("utf-16")),
        ("chips 1.json", b"\x1f\x8b packed"),
        ("chips 1.json", CERTIFICATE.pem().encode()),
        ("chips 1.zip", zipped("chip.pem", a_pfx())),
    ],
    ids=["UTF-16", "gzip", "certificate", "ZIP"],
)
def test_no_place_on_the_server_is_told_of_a_list(tmp_path: Path, name: str, content: bytes) -> None:
    (listed := tmp_path / "0000").write_bytes(content)
    (root := tmp_path / "0001").write_bytes(a_ca().certificate.der)
    dropped = sort([UploadedFile(LIST, name, listed), UploadedFile(TRUST, "root.cer", root)])
    try:
        (row,) = rows_of(dropped, NOON, lambda: False)
        said = str(row["problem"])
    except ManifestError as error:
        said = str(told(error))
    assert "chips 1" in said
    assert str(tmp_path) not in said


def test_names_of_lists_lead_nowhere_else(tmp_path: Path) -> None:
    drops = Uploads(tmp_path, SeededEntropy(0))
    for name in ("..", "../x", "", "x", "a" * 24, "/etc"):
        with pytest.raises(DropGoneError):
            drops.of("anna", name)


def test_what_is_too_old_goes_and_what_was_run_stays_longer(tmp_path: Path) -> None:
    drops, clock = Uploads(tmp_path / "d", SeededEntropy(0)), FakeClock()
    path = drops.create_directory("anna", clock.now())
    (path / "about.json").write_text('{"user": "anna", "at": "1"}')
    Upload(path).keep_state(UploadState("read", 1, 1))
    assert drops.of("anna", path.name).state().phase == "read"
    with pytest.raises(DropGoneError):
        drops.of("bert", path.name)
    (path / "run.jsonl").write_text('{"begun": "1"}\n{"place": 1, "outcome": "created"}\n{"pla')
    Upload(path).keep_state(UploadState("running", 0, 3))
    assert Upload(path).state() == UploadState("cut off", 1, 3, {"created": 1})


def test_a_step_waits_for_what_was_measured() -> None:
    reader.set(PageLocale())
    row = {"state": "both trusted, the old signs", "devices": 4, "fetched": 3, "groups": ["g"]}
    assert [(gate.is_open, gate.value, gate.most) for gate in gates_of(row)] == [(False, 3, 4), (False, 0, 0)]
    assert share_of(row) == 0.75
    assert share_of({"devices": 0, "fetched": 0}) == 1.0
    row = {"state": "both trusted, the new signs", "below_old": 0, "below_new": 4, "groups": []}
    assert all(gate.is_open for gate in gates_of(row))
    assert [place_of(one) for one in ("one root", "the new alone", "x")] == [0, 3, 0]


def a_drop(drops: Uploads, user: str, clock: FakeClock, *, is_run: bool = False) -> Upload:
    made = Upload(drops.create_directory(user, clock.now()))
    drops.remove_superseded(user)
    (made.path / "about.json").write_text(json.dumps({"user": user, "at": clock.now().isoformat()}))
    made.keep_state(UploadState("complete" if is_run else "read", 1, 1, {}))
    if is_run:
        (made.path / "run.jsonl").touch()
    clock.move(timedelta(seconds=1))
    return made


def test_lists_of_one_that_are_looked_at_leave_room_for_others(tmp_path: Path) -> None:
    drops, clock = Uploads(tmp_path / "d", SeededEntropy(0)), FakeClock()
    locks = []
    for _ in range(MOST_OF_ONE):
        busy = a_drop(drops, "anna", clock)
        busy.keep_state(UploadState("reading"))
        locks.append(flock.take(busy.lock, patience=1))
    with pytest.raises(TooManyDropsError):
        drops.create_directory("anna", clock.now())
    assert a_drop(drops, "berta", clock).state().phase == "read"
    for lock in locks:
        assert lock is not None
        os.close(lock)


def test_a_list_goes_when_another_one_has_come_whole_and_not_before(tmp_path: Path) -> None:
    drops, clock = Uploads(tmp_path / "d", SeededEntropy(0)), FakeClock()
    run = [a_drop(drops, "anna", clock, is_run=True) for _ in range(MOST_OF_ONE - 1)]
    looked = a_drop(drops, "anna", clock)
    cut_off = drops.create_directory("anna", clock.now())
    shutil.rmtree(cut_off)
    assert looked.path.exists()
    last = a_drop(drops, "anna", clock, is_run=True)
    assert [one.path.exists() for one in (looked, *run, last)] == [False, False, *([True] * (MOST_OF_ONE - 1))]


def test_the_same_as_a_command_is_one_that_works() -> None:
    def said(kind: UploadKind, *names: str, **others: object) -> str:
        drop = {"kind": kind, "name": names[0], "names": names, "count": len(names), "dps": "birthmark"}
        return _command({**drop, SIGNERS: [], TRUST: [], **others})

    roots: dict[str, object] = {TRUST: ["root.pem"]}
    assert said(UploadKind.CERTIFICATES, "a.cer") == "birthmark device enroll --cert a.cer"
    each = "for file in a.cer 'b c.cer'; do birthmark device enroll --cert \"$file\"; done"
    assert said(UploadKind.CERTIFICATES, "a.cer", "b c.cer") == each
    listed = "birthmark device enroll-list certificates --trust-root root.pem"
    for names in (("a.cer",), ("a.cer", "b.cer")):
        copied = f"mkdir certificates && cp -- {' '.join(names)} certificates && {listed}"
        assert said(UploadKind.CERTIFICATES, *names, **roots) == copied
    assert said(UploadKind.CERTIFICATES, "a.cer", count=30) == ""
    assert said(UploadKind.ZIP, "a.zip", **roots, **{SIGNERS: ["s.pem"]}) == (
        "birthmark device enroll-list a.zip --trust-root root.pem"
    )
    assert (
        said(UploadKind.MANIFEST, "a.json", **{SIGNERS: ["s.pem"]})
        == "birthmark device enroll-list a.json --signer s.pem"
    )


async def test_a_list_whose_check_is_displayed_as_complete_is_enrolled_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check is complete only after its files are removed: on a slow disk the run was refused in between."""
    upload = Upload(tmp_path)
    (tmp_path / "about.json").write_text('{"dps": "main"}')
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: time.sleep(0.2))
    nobody: Any = None
    work = EnrollmentWork(nobody, FakeClock(NOON))
    assert work.look(upload, [], lambda: nobody)
    while upload.state().is_busy:
        await asyncio.sleep(0.01)
    assert work.run(upload, lambda: nobody)
