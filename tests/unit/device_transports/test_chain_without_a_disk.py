"""The chain reaches OpenSSL where nothing can be written."""

import errno
import os
import tempfile
from pathlib import Path

import pytest

from birthmark.clock_and_entropy import SystemClock
from birthmark.device_transports.errors import TempFileError
from birthmark.device_transports.identity_and_trust import FileIdentity, ServerTrust
from birthmark.device_transports.openssl.tls_context import client_context
from birthmark.keys.file_key import FileKey
from support.pki.pki_builders import a_ca, a_device


@pytest.fixture
def identity(tmp_path: Path) -> FileIdentity:
    now = SystemClock().now()
    holder = a_device(a_ca(now=now), now=now)
    path = tmp_path / "device.key"
    path.touch(mode=0o600)
    path.write_text(holder.key_pem)
    return FileIdentity((holder.certificate,), FileKey.load(path))


def no_memory_files(*_: object) -> int:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def test_a_context_needs_no_room_on_a_disk(identity: FileIdentity, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    assert client_context(identity, ServerTrust()) is not None


def test_a_kernel_without_files_in_memory_is_served_too(
    identity: FileIdentity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "memfd_create", no_memory_files)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert client_context(identity, ServerTrust()) is not None
    assert [path.name for path in tmp_path.iterdir()] == ["device.key"]


def test_where_there_is_neither_it_is_a_refusal(identity: FileIdentity, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "memfd_create", no_memory_files)
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with pytest.raises(TempFileError):
        client_context(identity, ServerTrust())
