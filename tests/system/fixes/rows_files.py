"""Files of a hub: storage clients and devices that misuse them, and Birthmark's commands that put it right."""

import contextlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fixes.desk import Desk, RefusedError, Row, steps
from fixes.rows_azure import Act, in_hub, rest

_QUOTA = 12
CONFIG = f"[files]\ndevice_files = {_QUOTA}\n"
"""What the rows' server is configured with."""
_WRITES = 32


def signed(desk: Desk, container: str, permissions: str = "rcwdl") -> tuple[str, str]:
    """Return the host and the target of a container, with a signature."""
    line = f"birthmark hub file sas {container} --permissions {permissions} --json"
    url = json.loads(desk.scene.must(line))["url"]
    host, _, target = url.removeprefix("https://").partition("/")
    return host.partition(":")[0], f"/{target}"


def said(host: str, method: str, target: str, body: bytes = b"", **headers: str) -> bytes:
    lines = [
        f"{method} {target} HTTP/1.1",
        f"Host: {host}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def storage(
    method: str,
    name: str = "",
    query: str = "",
    body: bytes = b"",
    *,
    container: str = "fix-files",
    permissions: str = "rcwdl",
    **headers: str,
) -> Act:
    """Call the storage endpoint with a signature for a container."""

    def act(desk: Desk) -> None:
        host, target = signed(desk, container, permissions)
        path, _, sas = target.partition("?")
        full = f"{path}/{name}?{query}&{sas}" if name else f"{path}?{query}&{sas}"
        if method == "PUT" and "comp" not in query and name:
            headers.setdefault("x_ms_blob_type", "BlockBlob")
        desk.raw(said(host, method, full, body, **headers))

    return act


def made(container: str = "fix-files") -> Act:
    """Create a container, unless another row did."""

    def act(desk: Desk) -> None:
        with contextlib.suppress(RefusedError):
            storage("PUT", query="restype=container", container=container)(desk)

    return act


def begun(device: str, name: str = "f.txt") -> Act:
    return rest("IOTHUB", "POST", f"/devices/{device}/files", {"blobName": name})


def many_uploads(device: str) -> Act:
    return steps(*(begun(device, f"f{number}") for number in range(11)))


def answer_of(desk: Desk, device: str) -> dict[str, Any]:
    """Begin an upload, and return the answer."""
    answer = begun(device)(desk)
    assert isinstance(answer, bytes)
    found: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return found


def ended(device: str) -> Act:
    """Report a file that was never sent."""

    def act(desk: Desk) -> None:
        told = {"correlationId": answer_of(desk, device)["correlationId"], "isSuccess": True}
        rest("IOTHUB", "POST", f"/devices/{device}/files/notifications", told)(desk)

    return act


def too_many_blocks(device: str) -> Act:
    """Send more blocks than the device may have files."""

    def act(desk: Desk) -> None:
        info = answer_of(desk, device)
        host = info["hostName"].partition(":")[0]
        target = f"/{info['containerName']}/{info['blobName']}{info['sasToken']}"
        for number in range(_QUOTA + 1):
            desk.raw(said(host, "PUT", f"{target}&comp=block&blockid=MDAwM{number % 10}A{number // 10}%3D%3D", b"x"))

    return act


def too_many_writes(desk: Desk) -> None:
    """Hold as many uploads open as one client may have, and begin another."""
    host, target = signed(desk, "fix-files")
    path, _, sas = target.partition("?")
    with contextlib.ExitStack() as held:
        for number in range(_WRITES):
            sock = held.enter_context(desk.tls(8443))
            begin = said(host, "PUT", f"{path}/busy{number}?{sas}", b"x" * 10, x_ms_blob_type="BlockBlob")
            sock.sendall(begin[:-9])
        storage("PUT", "one-more")(desk)


def without_folder(desk: Desk) -> None:
    """Put a file where the folder of the files belongs."""
    folder = desk.server.data / "files"
    away = folder.with_name("files-away")
    folder.rename(away)
    folder.write_text("")
    try:
        storage("PUT", "nowhere")(desk)
    finally:
        folder.unlink()
        away.rename(folder)


def exporting(uri: str) -> Act:
    return rest("IOTHUB", "POST", "/jobs/create", {"type": "export", "outputBlobContainerUri": uri})


def exporting_elsewhere(desk: Desk) -> None:
    exporting("https://example.com/storage/fix-files?sig=x")(desk)


def exporting_twice(desk: Desk) -> None:
    """Begin exports at the same time, of which one runs."""
    host, target = signed(desk, "fix-files")
    begin = exporting(f"https://{host}{target}")
    with ThreadPoolExecutor(16) as pool:
        for _ in range(5):
            for one in [pool.submit(begin, desk) for _ in range(16)]:
                one.result()


FILES: Mapping[str, Row] = {
    "blob_storage.request_invalid": Row(storage("PUT", "page", x_ms_blob_type="PageBlob"), made(), is_instead=True),
    "blob_storage.sas_invalid": Row(
        lambda desk: desk.raw(said(signed(desk, "fix-files")[0], "GET", "/storage/fix-files/f?sig=AAAA")),
        is_instead=True,
    ),
    "blob_storage.permission_missing": Row(storage("PUT", "f", permissions="r"), made(), is_instead=True),
    "blob_storage.blob_not_found": Row(storage("GET", "none"), made(), is_instead=True),
    "blob_storage.container_not_found": Row(
        storage("GET", query="restype=container&comp=list", container="fix-none", permissions="rl"), is_instead=True
    ),
    "blob_storage.container_exists": Row(storage("PUT", query="restype=container"), made(), is_instead=True),
    "blob_storage.blob_exists": Row(
        storage("PUT", "once", if_none_match="*"), steps(made(), storage("PUT", "once")), is_instead=True
    ),
    "blob_storage.condition_not_met": Row(storage("PUT", "changed", if_match='"x"'), made(), is_instead=True),
    "blob_storage.block_list_invalid": Row(
        storage("PUT", "blocks", "comp=blocklist", b"<BlockList><Latest>YQ==</Latest></BlockList>"),
        made(),
        is_instead=True,
    ),
    "blob_storage.range_invalid": Row(
        storage("GET", "short", range="bytes=5-"), steps(made(), storage("PUT", "short")), is_instead=True
    ),
    "blob_storage.digest_mismatch": Row(
        storage("PUT", "digest", body=b"x", content_md5="AAAAAAAAAAAAAAAAAAAAAA=="), made(), is_instead=True
    ),
    "blob_storage.quota_exceeded": Row(too_many_blocks("fix-quota"), in_hub("fix-quota"), is_instead=True),
    "blob_storage.busy": Row(too_many_writes, made(), is_instead=True),
    "blob_storage.unavailable": Row(without_folder, steps(made(), storage("PUT", "there")), is_instead=True),
    "iothub.file_name_invalid": Row(begun("fix-name", "../other/f"), in_hub("fix-name"), is_instead=True),
    "iothub.too_many_uploads": Row(many_uploads("fix-uploads"), in_hub("fix-uploads"), is_instead=True),
    "iothub.unknown_upload": Row(
        rest("IOTHUB", "POST", "/devices/fix-upload/files/notifications", {"correlationId": "x"}),
        in_hub("fix-upload"),
        is_instead=True,
    ),
    "iothub.upload_not_stored": Row(ended("fix-stored"), in_hub("fix-stored"), is_instead=True),
    "iothub.container_uri_invalid": Row(exporting_elsewhere, is_instead=True),
    "iothub.registry_job_running": Row(exporting_twice, made(), is_instead=True),
    "iothub.unknown_registry_job": Row(rest("IOTHUB", "GET", "/jobs/unknown"), is_instead=True),
}
