"""Backup file: a tar of two files in the age format, readable with `age` and `tar` alone.

    key.age            an age identity created for this file, encrypted with the passphrase (scrypt)
    backup.tar.gz.age  the content, encrypted to that identity, as a stream of any length

The content is never on disk unencrypted during writing or reading; the caller determines its destination.
"""

import contextlib
import errno
import os
import re
import tarfile
import threading
from base64 import b64decode
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, Any

import pyrage
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from birthmark import atomic_files
from birthmark.errors import BirthmarkError, InvalidRequestError
from birthmark.ownership_and_sudo_commands import as_who_asked
from birthmark.server.backup.directory_walk import open_below

MAX_LOG_N = 22
"""Maximum scrypt work factor: 4 GB of memory, more than any machine uses for a delay of 1 s."""
_EXCESSIVE = "xcessive work"
_B64 = rb"[A-Za-z0-9+/]"
_HEADER = re.compile(
    rb"age-encryption\.org/v1\n"
    rb"-> scrypt (" + _B64 + rb"{22}) ([1-9][0-9]?)\n"
    rb"(" + _B64 + rb"{43})\n"
    rb"--- (" + _B64 + rb"{43})\n"
)
_NONCE_BYTES, _FILE_KEY_BYTES = 16, 16
_LAST_CHUNK = bytes(11) + b"\x01"


def decrypted(data: bytes, passphrase: str) -> bytes:
    """Return the decrypted content, at most 64 KiB.

    Raise `pyrage.DecryptError`, or `ValueError` for another format.
    """
    try:
        return bytes(pyrage.passphrase.decrypt(data, passphrase))
    except pyrage.DecryptError as error:
        if _EXCESSIVE not in str(error):
            raise
        try:
            return _by_hand(data, passphrase.encode())
        except InvalidTag:
            raise error from None


def _by_hand(data: bytes, passphrase: bytes) -> bytes:
    if (header := _HEADER.match(data)) is None or (log_n := int(header[2])) > MAX_LOG_N:
        raise ValueError("its decryption needs far more work than that of any backup")
    salt, body, mac = (b64decode(header[part] + b"=" * (-len(header[part]) % 4)) for part in (1, 3, 4))
    wrapping = Scrypt(b"age-encryption.org/v1/scrypt" + salt, 32, 1 << log_n, 8, 1).derive(passphrase)
    file_key = ChaCha20Poly1305(wrapping).decrypt(bytes(12), body, None)
    proof = hmac.HMAC(_derived(file_key, b"", b"header"), hashes.SHA256())
    proof.update(data[: header.start(4) - 1])
    if len(file_key) != _FILE_KEY_BYTES or proof.finalize() != mac:
        raise InvalidTag
    nonce, chunk = data[header.end() :][:_NONCE_BYTES], data[header.end() + _NONCE_BYTES :]
    return ChaCha20Poly1305(_derived(file_key, nonce, b"payload")).decrypt(_LAST_CHUNK, chunk, None)


def _derived(key: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt, info).derive(key)


KEY, CONTENT = "key.age", "backup.tar.gz.age"
_MAX_KEY_BYTES = 64 * 1024
FIRST = "manifest.json"
"""Name of the manifest, the first file of the archive."""
BUILDING = ".birthmark-backup.new"
_CHUNK = 1 << 20
_LEAST_FREE = 0.02
"""Minimum free share of a disk, in bytes and in files, whatever the backup contains."""


class BackupUnreadableError(InvalidRequestError):
    """The backup cannot be opened."""

    code = "server.backup_unreadable"
    cause = "{path} cannot be opened as a backup: {detail}."
    fix = (
        "Pass a complete backup file, for which `tar tf {path}` lists key.age and backup.tar.gz.age. To create a "
        "backup: `birthmark server backup --out server.birthmark`."
    )
    detail: str
    is_locked: bool = False
    """Whether the passphrase may be wrong."""
    path: Path


@dataclass(frozen=True, slots=True)
class ArchivePart:
    """A file of the backup: its archive name, and its bytes or path.

    `below` is the folder that the path must not leave through symlinks.
    """

    name: str
    source: Path | bytes
    below: Path | None = None

    def opened(self) -> IO[bytes]:
        """Open the part as a binary file. Raise `OSError`."""
        if isinstance(self.source, bytes):
            return BytesIO(self.source)
        return self.source.open("rb") if self.below is None else open_below(self.below, self.source)


def write_archive(out: Path, passphrase: str, parts: Sequence[ArchivePart]) -> None:
    """Write a new file atomically. Raise `FileExistsError`, `OSError`."""
    identity = pyrage.x25519.Identity.generate()
    key = pyrage.passphrase.encrypt(str(identity).encode(), passphrase)
    try:
        _write(out, key, identity, parts)
    except OSError as error:
        if error.filename is None:  # such as a full disk: report the target
            error.filename = str(out)
        raise


def _write(out: Path, key: bytes, identity: pyrage.x25519.Identity, parts: Sequence[ArchivePart]) -> None:
    # One name per directory: the next run removes the leftover of a killed run, whatever its target was.
    atomic_files.clear(out.with_name(BUILDING))
    with atomic_files.create_incrementally(out, beside=out.with_name(BUILDING)) as file:
        file.write(_head(KEY, len(key)) + key + _filling(len(key)))
        begins = file.tell()
        file.write(_head(CONTENT, 0))
        with _fed(lambda pipe: _pack(pipe, parts)) as plain:
            _ArchiveWriter(file).by(lambda target: pyrage.encrypt_io(plain, target, [identity.to_public()]))
        size = file.tell() - begins - tarfile.BLOCKSIZE
        file.write(_filling(size) + bytes(2 * tarfile.BLOCKSIZE))
        file.seek(begins)
        file.write(_head(CONTENT, size))


class _ArchiveWriter:
    """File object for pyrage that keeps the original `OSError`, for which pyrage raises another error."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._trouble = file, list[OSError]()

    def by(self, work: Callable[[Any], None]) -> None:
        """Call `work` with this writer. Raise `OSError`."""
        try:
            work(self)
        except pyrage.EncryptError:
            if self._trouble:
                raise self._trouble[0] from None
            raise

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self._trouble.append(error)
            raise

    def flush(self) -> None:
        try:
            self._file.flush()
        except OSError as error:
            self._trouble.append(error)
            raise


def _head(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.mode, member.size = 0o600, size
    return member.tobuf(tarfile.GNU_FORMAT)


def _filling(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


def read_archive(path: Path, passphrase: str, into: Path, names: Collection[str]) -> None:
    """Extract the named files and folders into an existing directory.

    Raise `BackupUnreadableError`, `OSError`.
    """
    try:
        with as_who_asked():
            opened = path.open("rb")
        with opened, tarfile.open(fileobj=opened, mode="r:") as outer:
            identity = pyrage.x25519.Identity.from_str(_decrypted_key(outer, passphrase))
            content = outer.extractfile(CONTENT)
            if content is None:
                raise BackupUnreadableError(path=path, detail=f"it does not contain {CONTENT}")
            with _drained(lambda pipe: _unpack(pipe, into, names)) as plain:
                pyrage.decrypt_io(content, plain, [identity])
    except (pyrage.DecryptError, pyrage.IdentityError) as error:
        detail = "the passphrase is another, or it is damaged"
        refusal = BackupUnreadableError(path=path, detail=detail, is_locked=True)
        refusal.quote(
            fix=(
                "Set the path of the file with this backup's passphrase: `export "
                "BIRTHMARK_BACKUP_PASSPHRASE_FILE=backup.passphrase`."
            )
        )
        raise refusal from error
    except (tarfile.TarError, EOFError, KeyError, ValueError, RecursionError) as error:
        raise BackupUnreadableError(path=path, detail="it is not a backup, or it is damaged") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise BackupUnreadableError(path=path, detail="it is damaged") from error  # error of the stream's reader


def _decrypted_key(outer: tarfile.TarFile, passphrase: str) -> str:
    file = outer.extractfile(KEY)
    data = b"" if file is None else file.read(_MAX_KEY_BYTES)
    return decrypted(data, passphrase).decode("ascii")


def _pack(pipe: IO[bytes], parts: Sequence[ArchivePart]) -> None:
    with tarfile.open(fileobj=pipe, mode="w|gz") as inner:
        for part in parts:
            _add(inner, part)


def _unpack(pipe: IO[bytes], into: Path, names: Collection[str]) -> None:
    """Extract regular files only, below `into` only, readable only by their owner; certificates by all.

    Extraction stops at an archive without a manifest, and before the disk falls below its minimum free space.
    """
    with tarfile.open(fileobj=pipe, mode="r|gz") as inner:
        for member in inner:
            name = PurePosixPath(member.name)
            file = inner.extractfile(member)
            if file is None or not member.isreg() or name.is_absolute() or ".." in name.parts:
                raise ValueError(member.name)
            if next(iter(name.parts), "") not in names:
                raise ValueError(member.name)
            if not (member.name == FIRST or (into / FIRST).exists()):
                raise ValueError(member.name)
            _check_room(into, member.size)
            path = into / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            mode = 0o644 if name.suffix == ".pem" and not name.name.startswith("ocsp-") else 0o600
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            try:
                with os.fdopen(descriptor, "wb") as target:
                    while chunk := file.read(_CHUNK):
                        target.write(chunk)
                    target.flush()
                    os.fsync(target.fileno())
            except OSError as error:
                if error.errno is not None and error.filename is None:  # otherwise from the damaged stream
                    error.filename = str(path)
                raise


def _check_room(into: Path, size: int) -> None:
    """Raise `OSError` if a file would exceed the disk's minimum of free bytes or files."""
    told = os.statvfs(into)
    left, files_left = told.f_bavail * told.f_frsize - size, told.f_favail or told.f_files - told.f_ffree
    if left < _LEAST_FREE * told.f_blocks * told.f_frsize or (told.f_files and files_left < _LEAST_FREE * told.f_files):
        raise OSError(errno.ENOSPC, "the backup's content would fill this disk", str(into))


def _add(archive: tarfile.TarFile, part: ArchivePart) -> None:
    member = tarfile.TarInfo(part.name)
    member.mode = 0o600
    with part.opened() as file:
        member.size = len(part.source) if isinstance(part.source, bytes) else os.fstat(file.fileno()).st_size
        archive.addfile(member, file)


@contextlib.contextmanager
def _fed(write: Callable[[IO[bytes]], None]) -> Iterator[IO[bytes]]:
    """Yield the read end of a pipe that `write` fills concurrently."""
    reading, writing = os.pipe()
    with _run_in_thread(write, os.fdopen(writing, "wb")), os.fdopen(reading, "rb") as pipe:
        yield pipe


@contextlib.contextmanager
def _drained(read: Callable[[IO[bytes]], None]) -> Iterator[IO[bytes]]:
    """Yield the write end of a pipe that `read` consumes concurrently."""
    reading, writing = os.pipe()
    with _run_in_thread(read, os.fdopen(reading, "rb")), os.fdopen(writing, "wb") as pipe:
        yield pipe


@contextlib.contextmanager
def _run_in_thread(work: Callable[[IO[bytes]], None], pipe: IO[bytes]) -> Iterator[None]:
    """Run `work` in a separate thread and re-raise its error here, in preference to a resulting broken pipe."""
    trouble: list[BaseException] = []

    def run() -> None:
        try:
            with pipe:
                work(pipe)
        except BaseException as error:  # noqa: BLE001 - raised below, in the waiting thread
            trouble.append(error)

    thread = threading.Thread(target=run, name="backup")
    thread.start()
    try:
        yield
    except BrokenPipeError:
        thread.join()
        if not trouble:
            raise
    except Exception as error:
        thread.join()
        if trouble and isinstance(told := trouble[0], OSError) and told.errno not in {None, errno.EPIPE}:
            raise told from error  # pyrage does not report a pipe broken by a full disk
        raise
    finally:
        thread.join()
    if trouble and not isinstance(trouble[0], BirthmarkError):
        raise trouble[0]
