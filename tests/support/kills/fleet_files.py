"""Uploads, imports and exports of a fleet while the server is killed, and a reader that must see no half file.

A device's file has numbered versions, so whoever reads it knows whether it is one version in full.
"""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any, Protocol

import requests

from support.azure.sas_tokens import make_sas
from support.kills.patient_client import PATIENCE_S, PatientClient
from support.server.servers import RunningServer

FILE_BYTES = 200_000
_BLOCKS = 4
_LINES = 200
KEY = b"k" * 32
_ENDED = {"completed", "failed", "cancelled"}


class UntilOver(Protocol):
    """Work that goes on until the kills are over, and notes what was wrong in `faults`."""

    faults: list[str]

    def keep_on(self, is_over: threading.Event) -> None: ...


def content_of(name: str, version: int) -> bytes:
    return (f"{name}/{version}\n".encode() * FILE_BYTES)[:FILE_BYTES]


def version_of(name: str, content: bytes) -> int | None:
    """Return which version of a device's file this is in full; None if it is none."""
    _, _, number = content.partition(b"\n")[0].rpartition(b"/")
    return int(number) if number.isdigit() and content == content_of(name, int(number)) else None


class _SlowBody:
    """A body that takes about 100 ms to send, so that kills meet it."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __len__(self) -> int:
        return len(self._content)

    def __iter__(self) -> Iterator[bytes]:
        step = len(self._content) // 10
        for first in range(0, len(self._content), step):
            yield self._content[first : first + step]
            time.sleep(0.01)


class Uploads:
    """Devices that upload their files again and again: as a whole, or as blocks."""

    def __init__(self, client: PatientClient, names: Sequence[str]) -> None:
        self.faults: list[str] = []
        self.cuts = 0
        self.stored: dict[str, int] = {}
        """The version that each device uploaded last."""
        self._client = client
        self._names = names
        self._sending: Counter[str] = Counter()

    @property
    def sending(self) -> int:
        """Number of files that are being sent now."""
        return self._sending.total()

    def keep_on(self, is_over: threading.Event) -> None:
        version = 0
        while not version or not is_over.is_set():
            for name in self._names:
                self._upload(name, version)
                if version and is_over.is_set():
                    return
            version += 1

    def _upload(self, name: str, version: int) -> None:
        """Upload a file as a device, until it is complete."""
        client = self._client
        who = client.first, make_sas(f"{client.first}/devices/{name}", KEY, int(time.time()) + 3600)
        status, told = client.until_answered(who, "POST", f"/devices/{name}/files", {"blobName": "log"})
        if status != HTTPStatus.OK:
            self.faults.append(f"{name} began no upload: {told}")
            return
        url = f"https://{told['hostName']}/{told['containerName']}/{told['blobName']}{told['sasToken']}"
        end = time.monotonic() + PATIENCE_S
        self._sending[name] += 1
        while not self._is_put(url, content_of(name, version), in_blocks=version % 2 == 1):
            if time.monotonic() > end:
                self.faults.append(f"{name} never uploaded its file")
                return
            time.sleep(random.uniform(0.05, 0.3))
        self._sending[name] -= 1
        self.stored[name] = version
        done = {"correlationId": told["correlationId"], "isSuccess": True, "statusCode": 200}
        status, told = client.until_answered(who, "POST", f"/devices/{name}/files/notifications", done)
        if status not in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_FOUND}:  # or done before its answer was lost
            self.faults.append(f"{name} could not end its upload: {told}")

    def _is_put(self, url: str, content: bytes, *, in_blocks: bool) -> bool:
        try:
            return self._put_blocks(url, content) if in_blocks else self._put(url, content)
        except requests.RequestException:
            self.cuts += 1
            return False

    def _put(self, url: str, content: bytes, **given: str) -> bool:
        headers = {"x-ms-blob-type": "BlockBlob", "x-ms-version": "2020-10-02"}
        body: Any = _SlowBody(content)
        answer = requests.put(url, body, params=given, headers=headers, verify=self._client.trust, timeout=20)
        if answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR and answer.status_code != HTTPStatus.CREATED:
            self.faults.append(f"{url.partition('?')[0]}: {answer.status_code} {answer.text}")
        return answer.status_code == HTTPStatus.CREATED

    def _put_blocks(self, url: str, content: bytes) -> bool:
        size = FILE_BYTES // _BLOCKS
        for number in range(_BLOCKS):
            block = content[number * size :][:size]
            if not self._put(url, block, comp="block", blockid=f"AAA{'ABCD'[number]}"):
                return False
        listed = "".join(f"<Latest>AAA{'ABCD'[number]}</Latest>" for number in range(_BLOCKS))
        return self._put(url, f"<BlockList>{listed}</BlockList>".encode(), comp="blocklist")


class FileReader:
    """Reads files and the export all the time; each that it sees has to be complete."""

    def __init__(self, server: RunningServer, names: Sequence[str], least_lines: int) -> None:
        """`least_lines`: lines of an export at least."""
        self.faults: list[str] = []
        self.seen: Counter[str] = Counter()
        self._files, self._exports = (_signed(server, container, "rl") for container in ("uploads", "registry"))
        self._names = names
        self._least = least_lines
        self._trust = server.endpoints["trust_bundle"]

    def keep_on(self, is_over: threading.Event) -> None:
        while not is_over.is_set():
            try:
                self._read(random.choice(self._names))
                self._read_export()
            except requests.RequestException:
                self.seen["cut"] += 1
                time.sleep(0.05)

    def read(self, name: str) -> bytes | None:
        """Return a device's file; None if there is none, or if the server cannot answer now."""
        return self._get(self._files, f"{name}/log")

    def _read(self, name: str) -> None:
        if (content := self.read(name)) is not None:
            self.seen["read"] += 1
            if version_of(name, content) is None:
                self.faults.append(f"half a file of {name}: {len(content)} bytes")

    def _read_export(self) -> None:
        if (content := self._get(self._exports, "devices.txt")) is not None:
            self.seen["exports"] += 1
            lines = content.splitlines()
            if len(lines) < self._least or not content.endswith(b"\n") or not json.loads(lines[-1])["id"]:
                self.faults.append(f"half an export of {len(lines)} lines")

    def _get(self, signed: str, name: str) -> bytes | None:
        container, _, sas = signed.partition("?")
        answer = requests.get(f"{container}/{name}?{sas}", verify=self._trust, timeout=20)
        if answer.status_code != HTTPStatus.OK:
            self.seen[str(answer.status_code)] += 1
            return None
        if len(answer.content) != int(answer.headers["content-length"]):
            raise requests.ConnectionError(name)
        return answer.content


class RegistryTransfers:
    """Imports of new devices, each followed by an export of all."""

    def __init__(self, server: RunningServer, client: PatientClient) -> None:
        self.faults: list[str] = []
        self.imported = 0
        self.running = ""
        """What runs now: `import`, `export` or nothing."""
        self._client = client
        self._signed = _signed(server, "registry", "rcwl")

    def keep_on(self, is_over: threading.Event) -> None:
        while not self.imported or not is_over.is_set():
            names = [f"i-{self.imported + number:06}" for number in range(_LINES)]
            lines = [json.dumps({"id": name, "importMode": "create", "status": "enabled"}) for name in names]
            self._put("new.txt", "\n".join(lines).encode())
            self._run("import", inputBlobName="new.txt", inputBlobContainerUri=self._signed)
            self.imported += _LINES
            self._run("export")

    def _run(self, kind: str, **given: str) -> None:
        """Run a job to its end; one whose answer was lost is followed instead."""
        body = {"type": kind, "outputBlobContainerUri": self._signed, **given}
        self.running, end = kind, time.monotonic() + PATIENCE_S
        client = self._client
        before = self._jobs()
        status, told = client.hub(client.first, "POST", "/jobs/create", body)
        job_id = told["jobId"] if status == HTTPStatus.OK else next(iter(self._jobs() - before), "")
        job: dict[str, Any] = {}
        while job.get("status") not in _ENDED and time.monotonic() < end:
            time.sleep(0.1)
            _, job = client.hub(client.first, "GET", f"/jobs/{job_id}")
        self.running = ""
        if job["status"] != "completed":
            self.faults.append(f"the {kind} is {job}")
        if kind == "import" and (errors := self._errors()):
            self.faults.append(f"the import has errors: {errors[:300]!r}")

    def _jobs(self) -> set[str]:
        _, jobs = self._client.hub(self._client.first, "GET", "/jobs")
        return {one["jobId"] for one in jobs}

    def _put(self, name: str, content: bytes) -> None:
        self._until(lambda url: requests.put(url, content, headers=_BLOB, verify=self._client.trust, timeout=20), name)

    def _errors(self) -> bytes:
        return self._until(lambda url: requests.get(url, verify=self._client.trust, timeout=20), "importErrors.log")

    def _until(self, ask: Any, name: str) -> bytes:
        container, _, sas = self._signed.partition("?")
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                answer = ask(f"{container}/{name}?{sas}")
                answer.raise_for_status()
            except requests.RequestException:
                assert time.monotonic() < end, f"{name} is never served"
                time.sleep(0.1)
            else:
                return bytes(answer.content)


_BLOB = {"x-ms-blob-type": "BlockBlob", "x-ms-version": "2020-10-02"}


def _signed(server: RunningServer, container: str, permissions: str) -> str:
    made = server.run("hub", "file", "sas", container, "--permissions", permissions, "--create", "--json")
    return str(json.loads(made.stdout)["url"])
