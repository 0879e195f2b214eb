"""Data directory, created by the first start and read by later ones.

    birthmark.db          the database (SQLite)
    birthmark.db.lock     held by the running server
    ca/                   root and issuing CA, keys encrypted
    tls/server.{pem,key}  the servers' certificate, reissued when names change or it expires
    trust.pem             our root alone
    bundle.pem            the system's roots and ours, for variables that replace a program's own store
    server.lock           held by the running server
    database.json         location of the database, without a password
    operator.token        the operator API's token
    audit.seed            signs the heads of the audit chain
    machine.json          identity of this node of a cluster, and the key to shared secrets
    est.seed              derives the passwords of EST credentials for one device, and seals the
                          symmetric keys in the database
    est.password          only in a directory of version 0.1.0: its first EST user's password
    endpoints.json        endpoints of the server; written when it is ready

Files with secrets are 0600; the directory is 0700.
"""

import contextlib
import os
import shutil
import socket
import stat
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from birthmark import atomic_files
from birthmark.ca.ca_directory import load_or_create
from birthmark.ca.hierarchy import Hierarchy
from birthmark.ca.hierarchy_files import alone_in
from birthmark.ca.key_files import (
    SecretUnreadableError,
    check_directory,
    check_owned,
    key_pem,
    read_key,
    read_owned,
    read_private,
)
from birthmark.ca.passphrase_sources import Passphrase
from birthmark.ca.root_generation_directories import FIRST, Generations, directory_of
from birthmark.ca.server_certificates import issue_server
from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.errors import BirthmarkError, ConflictError, PolicyError, UnavailableError
from birthmark.operator_api.client.vendor_tool_environment import system_roots
from birthmark.operator_api.data_directory_lock import DirectoryLock
from birthmark.pki.certificate_profiles import Purpose
from birthmark.pki.certificates import Certificate, parse_bundle
from birthmark.pki.issuance import LeafIssuer, SigningKey, new_serial
from birthmark.pki.revocation_urls import DistributionPoints

_RENEW_BEFORE = timedelta(days=30)
_LIFETIME = timedelta(days=365)
_LONGEST = timedelta(days=366)  # limit of clients and scanners


class DataDirectoryError(UnavailableError):
    """The data directory cannot be written."""

    code = "server.data_directory_not_writable"
    message = "Cannot write to the data directory {path}"
    cause = "The data directory {path} cannot be used: {reason}."
    fix = 'Use a directory that this user can write to: `{again} --data "$HOME/birthmark-data"`.'
    again: str = ""
    path: Path
    reason: object


class DataDirectoryExposedError(PolicyError):
    """Other users can write to the data directory."""

    code = "server.data_directory_exposed"
    message = "Other users can write to the data directory {path}"
    cause = "Users other than the owner can write to the data directory {path} (mode {mode}) and could replace keys."
    fix = (
        "Remove the write permission (`chmod go-w {path}`) and check the files in the directory, or pass another "
        "directory with --data."
    )
    mode: str
    path: Path


class DataDirectoryForeignError(PolicyError):
    """The data directory belongs to another user, who can replace its files."""

    code = "server.data_directory_foreign"
    message = "The data directory {path} belongs to another user"
    cause = (
        "The data directory {path} belongs to the user with the ID {owner}, but this server runs as the user {user}."
    )
    fix = (
        "Run the server as the owner, or pass another directory with --data. If you know the directory's content, "
        "change its owner: `chown -R {user} {path}`."
    )
    owner: int
    path: Path
    user: int


class RecordsLostError(UnavailableError):
    """The database is empty."""

    code = "server.records_lost"
    cause = (
        "A server previously used {path}, and its database {how}. Device names, revocations, and the audit log would "
        "be lost."
    )
    fix = (
        "Restore the database from a backup, or specify the earlier database with --database. To use an empty "
        "database with the same CA, with all names available again and no other machines: `rm -f "
        "{path}/operator.token {path}/machine.json`. Then start the server."
    )
    how: str = "is empty now"
    path: Path


RESTORING = ".restoring"
"""Build directory of a restore; removed when all files are in place."""
UNFINISHED = "restore.unfinished"
"""Database marker of an unfinished restore."""
MOVING = ".moving"
"""Name prefix of directories for the copies of a database migration."""
RESTORED = ".restored"
"""Leftovers of a complete restore, which the next start removes."""


class RestoreUnfinishedError(ConflictError):
    """A restore to that directory is incomplete."""

    code = "server.restore_unfinished"
    cause = "A restore to {path} was interrupted; the server's data is incomplete."
    fix = "To start over, run the same restore again: `birthmark server restore FILE --data {path}`."
    path: Path


class DataDirectory:
    """Reads and creates the files above."""

    def __init__(self, path: Path, clock: Clock, entropy: Entropy, *, is_held: bool = False) -> None:
        """Create the data directory object; `is_held` means that the parent of this worker holds the lock."""
        self.path = path
        self._is_held = is_held
        self._clock = clock
        self._entropy = entropy
        self._lock = DirectoryLock(path)
        self._passphrase: Passphrase | None = None

    def prepare(self) -> None:
        """Create the directory, accessible only to this user.

        Raise `DataDirectoryError`, `DataDirectoryForeignError`, `DataDirectoryExposedError`, `RestoreUnfinishedError`,
        `DirectoryInUseError`, or `SecretForeignError` and `SecretExposedError` for the database file.
        """
        with self._usable():
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            status = self.path.stat()
            mode = status.st_mode
            if status.st_uid not in {os.geteuid(), 0}:
                raise DataDirectoryForeignError(path=self.path, owner=status.st_uid, user=os.geteuid())
            if mode & (stat.S_IWOTH | stat.S_IWGRP):
                raise DataDirectoryExposedError(path=self.path, mode=f"{mode & 0o777:o}")
            if self.has(RESTORING):
                raise RestoreUnfinishedError(path=self.path)
            probe = self.path / ".writable"
            probe.write_bytes(b"")
            probe.unlink()
            for database in ("birthmark.db", "birthmark.db-wal"):
                if self.has(database):
                    check_owned(self.path / database)
            if not self._is_held:
                self._lock.acquire()
            shutil.rmtree(self.path / RESTORED, ignore_errors=True)
            atomic_files.clear_directories(self.path, MOVING)

    def release(self) -> None:
        """Release the directory for the next server and remove the endpoints file."""
        if self._lock.is_held:
            self.forget("endpoints.json")
            self._lock.release()

    def hierarchy(
        self, root: str | None = None, points: DistributionPoints | None = None, source: str | None = None
    ) -> Hierarchy:
        """Return the CA, created at the first start. `root` is the root recorded in the database.

        Raise `CaLostError`, `CaForeignError`, `RecordsLostError`.
        """
        # A start writes the token after the first records, so a token without records means that they were lost.
        if root is None and self.has("operator.token"):
            raise RecordsLostError(path=self.path)
        with self._usable():
            ca, now = directory_of(self.path, root), self._clock.now
            passphrase = self._passphrase = Passphrase(ca, source)
            return load_or_create(
                ca, "Birthmark", now=now, entropy=self._entropy, root=root, points=points, passphrase=passphrase
            )

    def generations(self, hierarchy: Hierarchy, points: DistributionPoints | None = None) -> Generations:
        """Return all root generations, starting with the opened one, and the rollover operations."""
        passphrase = self._passphrase or Passphrase(self.path / FIRST)
        return Generations(self.path, hierarchy.generations[0], passphrase, self._clock, self._entropy, points)

    def trust(self, hierarchy: Hierarchy) -> None:
        """Write the trust bundle with the roots that this server trusts."""
        self._write_trust(*hierarchy.anchors)

    def _write_trust(self, *roots: Certificate) -> None:
        ours = "".join(root.pem() for root in roots).encode()
        self.write("trust.pem", ours, is_secret=False)
        self.write("bundle.pem", system_roots() + ours, is_secret=False)

    def trust_also(self, hierarchy: Hierarchy, chain: Sequence[Certificate]) -> None:
        """Add the CAs of `chain`, which issued the served certificate, to the trust bundle."""
        self._write_trust(*hierarchy.anchors, *(c for c in chain if c.is_ca or c.is_self_issued))

    def server_certificate(
        self, hierarchy: Hierarchy, names: Iterable[str], points: DistributionPoints | None = None
    ) -> tuple[Sequence[Certificate], SigningKey]:
        """Return the servers' chain and key, for at least `names`.

        The root signs the certificate itself while its key is available. On the EST port the end of the chain is then
        an anchor for servers and devices alike, as third-party tutorials expect.
        """
        wanted = dict.fromkeys([*names, "localhost", "127.0.0.1", "::1", socket.gethostname()])
        directory = self.path / "tls"
        passphrase = self.secret("tls.passphrase").encode()
        with self._usable():
            if directory.exists():
                check_directory(directory)
            if (kept := self._kept_certificate(directory, passphrase, hierarchy, wanted)) is not None:
                return kept
            directory.mkdir(exist_ok=True, mode=0o700)
            with alone_in(directory):  # all workers need one at one moment: the first creates it, others reuse it
                if (kept := self._kept_certificate(directory, passphrase, hierarchy, wanted)) is not None:
                    return kept
                key = ec.generate_private_key(ec.SECP256R1())
                serial, now = new_serial(self._entropy), self._clock.now()
                public, issuer = key.public_key(), self._signer(hierarchy)
                leaf = issue_server(
                    issuer, list(wanted), public, serial=serial, now=now, lifetime=_LIFETIME, points=points
                )
                chain = (leaf, *hierarchy.presented(issuer))
                atomic_files.replace(directory / "server.key", key_pem(key, passphrase))
                atomic_files.replace(directory / "server.pem", "".join(c.pem() for c in chain).encode("ascii"), 0o644)
                return chain, key

    def _kept_certificate(
        self, directory: Path, passphrase: bytes, hierarchy: Hierarchy, wanted: Iterable[str]
    ) -> tuple[Sequence[Certificate], SigningKey] | None:
        """Return the stored certificate and key if they are complete and cover `wanted`."""
        try:
            chain = parse_bundle(read_owned(directory / "server.pem"))
            key = read_key(directory / "server.key", passphrase)
        except (OSError, BirthmarkError):
            return None
        return (chain, key) if self._still_good(chain, key, hierarchy, wanted) else None

    def _signer(self, hierarchy: Hierarchy) -> LeafIssuer:
        if hierarchy.has_root:
            return hierarchy.root
        return hierarchy.issuer(Purpose.SERVERS, now=self._clock.now(), entropy=self._entropy)

    def secret(self, name: str) -> str:
        """Return a secret from its own file, created at the first start."""
        path = self.path / name
        if not path.exists():
            with self._usable():
                atomic_files.create(path, self._entropy.token(24).hex().encode() + b"\n")
        secret = read_private(path).strip().decode("ascii")
        if not secret:  # an empty password would admit anyone
            raise SecretUnreadableError(path=path, reason="it is empty")
        return secret

    def has(self, name: str) -> bool:
        """Return whether the file exists."""
        return (self.path / name).exists()

    def write(self, name: str, content: bytes, *, is_secret: bool) -> None:
        """Replace a file atomically unless its content is equal."""
        mode = 0o600 if is_secret else 0o644
        with self._usable():
            if not atomic_files.has_content(self.path / name, content, mode):
                atomic_files.replace(self.path / name, content, mode)

    def forget(self, name: str) -> None:
        """Remove a file if it exists."""
        (self.path / name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataDirectoryError(path=self.path, reason=error.strerror) from error

    def _still_good(
        self, chain: Sequence[Certificate], key: SigningKey, hierarchy: Hierarchy, wanted: Iterable[str]
    ) -> bool:
        leaf = chain[0]
        if key.public_key() != leaf.public_key():  # start interrupted between the two files
            return False
        if leaf.not_after - leaf.not_before > _LONGEST:
            return False
        now, signer = self._clock.now(), self._signer(hierarchy)
        if leaf.not_before > max(now, signer.certificate.not_before):  # the clock was ahead; new ones start earlier
            return False
        if now > leaf.not_after - _RENEW_BEFORE or tuple(chain[1:]) != hierarchy.presented(signer):
            return False
        names = leaf.parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        present = {str(name.value).lower() for name in names}
        return all(name.lower() in present for name in wanted)
