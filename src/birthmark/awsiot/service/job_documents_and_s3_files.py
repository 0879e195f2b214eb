"""Bucket files of jobs: documents by reference, and files behind presigned URLs."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import BinaryIO

from birthmark.awsiot.rules import job_document_placeholders
from birthmark.awsiot.service.s3_buckets import Buckets
from birthmark.awsiot.wire import BodyInvalidError
from birthmark.awsiot.wire.jobs import MAX_DOCUMENT_BYTES, parse_document
from birthmark.clock_and_entropy import Clock
from birthmark.errors import ThrottledError

MAX_READING = 1000
MAX_READING_OF_THING = 4
RETRY_S = 10


class TooManyReadersError(ThrottledError):
    """Too many concurrent file downloads."""

    code = "awsiot.file_readers"
    message = "Too many concurrent file downloads"
    cause = (
        "{thing} downloads {reading} files concurrently (limit: {each}), and all things together download "
        "{all_reading} files (limit: {most})."
    )
    fix = "Retry when a download has ended. List jobs in progress: `birthmark aws job ls --status IN_PROGRESS`"
    all_reading: int
    each: int = MAX_READING_OF_THING
    most: int = MAX_READING
    reading: int
    thing: str


class JobFiles:
    """Documents and files below the folder that replaces Amazon S3.

    `secret` signs the URLs; `base` is the HTTPS base URL of this server.
    """

    def __init__(
        self, buckets: Buckets, secret: Callable[[], Awaitable[bytes]], clock: Clock, base: Callable[[], str]
    ) -> None:
        self._buckets = buckets
        self._secret = secret
        self._clock = clock
        self._reading: Counter[str] = Counter()
        self._base = base

    async def document_at(self, url: str) -> str:
        """Return the job document at a URL. Raise `BodyInvalidError`, `BucketKeyError`, `BucketFileError`."""
        bucket, key = job_document_placeholders.parse_object_url(url)
        found = await asyncio.to_thread(self._buckets.start_of, bucket, key, MAX_DOCUMENT_BYTES + 1)
        try:
            return parse_document(found.decode())
        except UnicodeDecodeError as error:
            raise BodyInvalidError(detail="the document is not UTF-8") from error

    async def check(self, document: str) -> None:
        """Raise if a file that a document references by URL does not exist."""
        for bucket, key in job_document_placeholders.files_in(document):
            await asyncio.to_thread(self._buckets.check, bucket, key)

    async def fill_document(self, document: str, thing: str, lifetime_s: int) -> str:
        """Return a document as delivered to a thing now, with URLs that expire after `lifetime_s`."""
        master, expires = await self._secret(), int(self._clock.now().timestamp()) + lifetime_s

        def url_of(bucket: str, key: str) -> str:
            path = job_document_placeholders.path_of(bucket, key)
            return f"{self._base()}{path}?{job_document_placeholders.query_of(master, path, thing, expires)}"

        return job_document_placeholders.substitute_urls(document, url_of)

    async def reader(self, path: str, query: Mapping[str, str]) -> str:
        """Return the thing of a file URL. Raise `FileLinkError`."""
        return job_document_placeholders.check_link(await self._secret(), path, query, self._clock.now())

    async def open_file(self, bucket: str, key: str) -> BinaryIO:
        """Return an open file, which the caller closes. Raise `BucketKeyError`, `BucketFileError`."""
        return await asyncio.to_thread(self._buckets.opened, bucket, key)

    @contextmanager
    def reading(self, thing: str) -> Iterator[None]:
        """Count a thing among the concurrent downloads. Raise `TooManyReadersError`."""
        reading, all_reading = self._reading[thing], self._reading.total()
        if reading >= MAX_READING_OF_THING or all_reading >= MAX_READING:
            raise TooManyReadersError(thing=thing, reading=reading, all_reading=all_reading, retry_after_s=RETRY_S)
        self._reading[thing] += 1
        try:
            yield
        finally:
            self._reading[thing] -= 1
            if not self._reading[thing]:
                del self._reading[thing]
