"""Import and export jobs of the registry: job documents, lines of devices, container URIs."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec
from msgspec.structs import replace

from birthmark.blob_storage.wire import ACCOUNT_PATH
from birthmark.errors import InvalidRequestError
from birthmark.iothub.model import Device, Module, Twin
from birthmark.iothub.wire.registry import (
    BulkItem,
    device_json,
    module_json,
    normalize_bulk_item,
)
from birthmark.iothub.wire.times_and_body_validation import BodyInvalidError, TwinProperties, check_members
from birthmark.unknown_field_detection import says_something
from birthmark.untrusted_json_and_text import read_json, split_url

MAX_LINE_BYTES = 256 * 1024
MAX_LINES = 1_000_000
_READ_ONLY = frozenset(
    {
        *("generationId", "connectionState", "connectionStateUpdatedTime", "statusUpdatedTime", "statusUpdateTime"),
        *("lastActivityTime", "cloudToDeviceMessageCount", "authentication.policyId"),
    }
)


class ContainerUriError(InvalidRequestError):
    """The container of an import or export job cannot be used."""

    code = "iothub.container_uri_invalid"
    message = "{member} cannot be used: {detail}"
    cause = "A registry job names a storage container in {member} that cannot be used: {detail}."
    fix = (
        "Use a container of the hub, with a signature for reading and writing: `birthmark hub file sas registry --hub "
        "{hub} --permissions rcwdl`"
    )
    hub: str
    member: str
    detail: str


class _JobBody(msgspec.Struct, rename="camel"):
    type: str = ""
    job_id: str | None = None
    input_blob_container_uri: str | None = None
    input_blob_name: str | None = None
    output_blob_container_uri: str | None = None
    output_blob_name: str | None = None
    exclude_keys_in_export: bool | None = None
    storage_authentication_type: str | None = None
    identity: Any = None
    include_configurations: bool | None = None
    configurations_blob_name: str | None = None


_TOLD_OF_JOB = frozenset({"jobId", "startTimeUtc", "endTimeUtc", "status", "progress", "failureReason"})


class RegistryJobRequest(msgspec.Struct, frozen=True):
    """A request for an import or export."""

    is_import: bool
    input_uri: str
    input_blob: str
    output_uri: str
    output_blob: str
    excludes_keys: bool


def parse_registry_job(body: bytes) -> RegistryJobRequest:
    """Return the request of `POST /jobs/create`. Raise `BodyInvalidError`."""
    asked = read_json(body, _JobBody, BodyInvalidError)
    check_members(body, _JobBody, _TOLD_OF_JOB)
    if asked.type not in {"import", "export"}:
        raise BodyInvalidError(detail="type must be import or export")
    if (asked.storage_authentication_type or "keyBased") != "keyBased" or says_something(asked.identity):
        raise BodyInvalidError(detail="storageAuthenticationType must be keyBased, without an identity")
    if asked.include_configurations or asked.configurations_blob_name:
        raise BodyInvalidError(detail="includeConfigurations is not supported: export devices alone")
    is_import = asked.type == "import"
    if is_import and not asked.input_blob_container_uri:
        raise BodyInvalidError(detail="inputBlobContainerUri is missing")
    if not asked.output_blob_container_uri:
        raise BodyInvalidError(detail="outputBlobContainerUri is missing")
    return RegistryJobRequest(
        is_import,
        asked.input_blob_container_uri or "",
        asked.input_blob_name or "devices.txt",
        asked.output_blob_container_uri,
        asked.output_blob_name or ("importErrors.log" if is_import else "devices.txt"),
        bool(asked.exclude_keys_in_export),
    )


def parse_container_uri(uri: str, hub: str, member: str) -> tuple[str, str, Mapping[str, str]]:
    """Return host, container and query of a container URI. Raise `ContainerUriError`."""
    try:
        parts = split_url(uri)
    except ValueError as error:
        raise ContainerUriError(hub=hub, member=member, detail="it is not a URL") from error
    account, _, container = unquote(parts.path).strip("/").partition("/")
    if parts.scheme != "https" or account != ACCOUNT_PATH or not container or "/" in container:
        raise ContainerUriError(hub=hub, member=member, detail="it is not a container of this hub")
    return parts.netloc, container, dict(parse_qsl(parts.query))


class ImportLine(BulkItem):
    """A line of an import: as in a bulk operation, but devices are created or updated by default."""

    import_mode: str = "createOrUpdate"

    @property
    def reported(self) -> Any:
        """Return the reported properties, without their metadata; None if there are none."""
        reported = None if self.properties is None else self.properties.reported
        return reported or None


def parse_import_line(line: bytes) -> ImportLine:
    """Return a device or module of an import. Raise `BodyInvalidError`."""
    item = read_json(line, ImportLine, BodyInvalidError)
    check_members(line, ImportLine, _READ_ONLY)
    normalize_bulk_item(item)
    if (known := item.properties) is None:
        return item
    sections = TwinProperties(_without_metadata(known.desired), _without_metadata(known.reported))
    return replace(item, properties=sections)


def _without_metadata(section: Any) -> Any:
    if not isinstance(section, dict):
        return section
    return {name: value for name, value in section.items() if name not in {"$metadata", "$version"}}


def export_line(identity: Device | Module, twin: Twin, *, with_keys: bool) -> bytes:
    """Return the line of a device or module, which an import accepts."""
    if isinstance(identity, Device):
        view = device_json(identity, is_connected=False, with_keys=with_keys)
        more = {name: view[name] for name in ("status", "statusReason", "capabilities", "deviceScope", "parentScopes")}
    else:
        view = module_json(identity, is_connected=False, with_keys=with_keys)
        more = {"moduleId": view["moduleId"], "managedBy": view["managedBy"]}
    line = {"id": view["deviceId"], "eTag": view["etag"], **more, "authentication": view["authentication"]}
    if twin.tags or twin.desired.values or twin.reported.values:
        line |= {
            "twinETag": twin.etag,
            "tags": twin.tags,
            "properties": {"desired": twin.desired.values, "reported": twin.reported.values},
        }
    return msgspec.json.encode(line) + b"\n"
