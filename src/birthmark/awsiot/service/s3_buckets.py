"""Folder that replaces Amazon S3: a bucket is a subfolder, a key a path below it."""

import os
import re
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from birthmark.errors import InvalidRequestError, NotFoundError
from birthmark.untrusted_json_and_text import reason_of

MAX_LINE_BYTES = 131_072
MAX_LINES = 1_000_000
_BUCKET = re.compile(r"[a-zA-Z0-9._-]{3,256}")
_MAX_KEY_BYTES = 1024
_MAX_SEGMENT_BYTES = 255
"""Maximum length of a file name on file systems."""


def is_bucket(name: str) -> bool:
    """Return whether a bucket name is a valid folder name."""
    return _BUCKET.fullmatch(name) is not None and name not in {".", "..", "..."}


def is_key(key: str) -> bool:
    """Return whether an object key, UTF-8 as in Amazon S3, is a valid file path below a folder."""
    segments = key.split("/")
    return (
        1 <= len(key.encode(errors="surrogatepass")) <= _MAX_KEY_BYTES
        and key.isprintable()
        and not {"", ".", ".."} & set(segments)
        and all(len(segment.encode()) <= _MAX_SEGMENT_BYTES for segment in segments)
    )


class BucketKeyError(InvalidRequestError):
    """The bucket or key is not valid."""

    code = "awsiot.bucket_key"
    message = "{bucket}/{key} is not a valid bucket and key"
    cause = (
        "The request names {bucket}/{key}. A bucket is a folder whose name has 3 to 256 letters, digits, dots, "
        "underscores and hyphens. A key is a file path in the bucket: 1 to 1024 bytes of printable UTF-8. No path "
        "segment can be empty, exceed 255 bytes, or be a dot segment (. or ..)."
    )
    fix = (
        "Use the file's path relative to the bucket's folder. Each folder in this directory is a bucket. To list the "
        "buckets: `mkdir -p {root} && ls {root}`"
    )
    bucket: str
    key: str
    root: str


class BucketFileError(NotFoundError):
    """The file in the bucket does not exist or cannot be read."""

    code = "awsiot.bucket_file"
    message = "{bucket}/{key} cannot be read: {reason}"
    fix = (
        "Put the file into the bucket's folder on the server's machine. To create the folder if necessary and list "
        "its files: `mkdir -p {root}/{bucket} && ls {root}/{bucket}`"
    )
    bucket: str
    key: str
    reason: str
    root: str


class Buckets:
    """S3 buckets as directories below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def root(self) -> Path:
        return self._root

    def path(self, bucket: str, key: str) -> Path:
        """Return the path of a file. Raise `BucketKeyError` for a path outside its bucket."""
        if not is_bucket(bucket) or not is_key(key):
            raise BucketKeyError(bucket=bucket[:256], key=key[:200], root=shlex.quote(str(self._root)))
        return self._root / bucket / key

    def new(self, bucket: str, key: str) -> Path:
        """Return the path of a new file and create its folders. Raise `BucketKeyError`, `BucketFileError`."""
        path, own = self.path(bucket, key), self._root / bucket
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_symlink() or not path.parent.resolve().is_relative_to(own.resolve()):
                raise self._unreadable(bucket, key, "it is not a file in this bucket")
        except OSError as error:
            raise self._unreadable(bucket, key, reason_of(error)) from error
        return path

    def check(self, bucket: str, key: str) -> None:
        """Raise `BucketKeyError` or `BucketFileError` if there is no readable file."""
        self.opened(bucket, key).close()

    def lines(self, bucket: str, key: str) -> Iterator[bytes]:
        """Yield the non-empty lines of a file. Raise `BucketFileError`."""
        with self.opened(bucket, key) as file:
            count = 0
            while line := file.readline(MAX_LINE_BYTES + 1):
                if len(line) > MAX_LINE_BYTES:
                    raise self._unreadable(bucket, key, f"line {count + 1} has more than {MAX_LINE_BYTES} bytes")
                if line.strip():
                    count += 1
                    if count > MAX_LINES:
                        raise self._unreadable(bucket, key, f"it has more than {MAX_LINES} lines")
                    yield line

    def start_of(self, bucket: str, key: str, size: int) -> bytes:
        """Return the first `size` bytes of a file. Raise `BucketKeyError`, `BucketFileError`."""
        with self.opened(bucket, key) as file:
            return file.read(size)

    def opened(self, bucket: str, key: str) -> BinaryIO:
        """Open a file for reading. Raise `BucketKeyError`, `BucketFileError`."""
        path = self.path(bucket, key)
        try:
            real = path.resolve(strict=True)
            if not real.is_relative_to((self._root / bucket).resolve()) or not real.is_file():
                raise self._unreadable(bucket, key, "it is not a file in this bucket")
            # A replaced path must be neither followed nor waited for.
            file = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise self._unreadable(bucket, key, reason_of(error)) from error
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise self._unreadable(bucket, key, "it is not a file in this bucket")
        return os.fdopen(file, "rb")

    def _unreadable(self, bucket: str, key: str, reason: str) -> BucketFileError:
        return BucketFileError(bucket=bucket, key=key, reason=reason, root=shlex.quote(str(self._root)))
