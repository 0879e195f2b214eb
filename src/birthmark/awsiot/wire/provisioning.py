"""Fleet provisioning messages in JSON and CBOR, and control plane JSON of templates and bulk registrations.

Devices use `$aws/certificates/…` and `$aws/provisioning-templates/…` (developer guide, "Device provisioning MQTT API").
"""

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from birthmark.awsiot.model import Account, ProvisioningTemplate, RegistrationTask, TemplateVersion
from birthmark.awsiot.wire import BodyInvalidError, seconds
from birthmark.awsiot.wire.cbor import CborError, decode, encode
from birthmark.untrusted_json_and_text import read_json

MAX_REQUEST_BYTES = 98_304
"""Maximum request size, which allows 64 KiB of parameters in JSON."""


class CsrRequest(msgspec.Struct, rename="camel"):
    certificate_signing_request: str = ""


class ProvisionRequest(msgspec.Struct, rename="camel"):
    certificate_ownership_token: str = ""
    parameters: dict[str, str] = {}


class HookAnswer(msgspec.Struct, rename="camel"):
    """Response of a pre-provisioning hook."""

    allow_provisioning: bool
    parameter_overrides: dict[str, str] | None = None


def parse_csr_request(payload: bytes, form: str) -> str:
    """Return the CSR of a certificate request. Raise `BodyInvalidError`."""
    found: CsrRequest = _parsed(payload, form, CsrRequest)
    return found.certificate_signing_request


def parse_provision(payload: bytes, form: str) -> ProvisionRequest:
    """Parse a provisioning request. Raise `BodyInvalidError`."""
    found: ProvisionRequest = _parsed(payload, form, ProvisionRequest)
    return found


def parse_hook_answer(value: Any) -> HookAnswer:
    """Parse the response of a pre-provisioning hook. Raise `msgspec.ValidationError`."""
    return msgspec.convert(value, HookAnswer)


def answer_body(answer: Mapping[str, Any], form: str) -> bytes:
    """Encode a response in the format of its request."""
    return encode(dict(answer)) if form == "cbor" else json.dumps(answer).encode()


def _parsed(payload: bytes, form: str, kind: type[Any]) -> Any:
    if len(payload) > MAX_REQUEST_BYTES:
        raise BodyInvalidError(
            detail=f"it has more than {MAX_REQUEST_BYTES} bytes", command="birthmark aws template example"
        )
    if form == "json":
        return read_json(payload or b"{}", kind, _invalid)
    try:
        return msgspec.convert(decode(payload) if payload else {}, kind)
    except (CborError, msgspec.ValidationError) as error:
        raise _invalid(detail=str(error)[:300]) from error


def _invalid(detail: str) -> BodyInvalidError:
    return BodyInvalidError(detail=detail, command="birthmark aws template example")


def template_entry_json(account: Account, template: ProvisioningTemplate) -> dict[str, Any]:
    """Return an entry of ListProvisioningTemplates."""
    return {
        "templateArn": account.arn("provisioningtemplate", template.name),
        "templateName": template.name,
        "description": template.description,
        "creationDate": seconds(template.created_at),
        "lastModifiedDate": seconds(template.modified_at),
        "enabled": template.is_enabled,
        "type": template.kind.value,
    }


def template_json(account: Account, template: ProvisioningTemplate, version: TemplateVersion) -> dict[str, Any]:
    """Return the DescribeProvisioningTemplate response."""
    hook = {} if template.hook is None else {"preProvisioningHook": json.loads(template.hook)}
    return (
        template_entry_json(account, template)
        | {
            "defaultVersionId": template.default_version,
            "templateBody": version.body,
            "provisioningRoleArn": template.role_arn,
        }
        | hook
    )


def template_version_json(template: ProvisioningTemplate, version: TemplateVersion) -> dict[str, Any]:
    """Return an entry of ListProvisioningTemplateVersions."""
    return {
        "versionId": version.version,
        "creationDate": seconds(version.created_at),
        "isDefaultVersion": version.version == template.default_version,
    }


def task_json(task: RegistrationTask) -> dict[str, Any]:
    """Return the DescribeThingRegistrationTask response."""
    return {
        "taskId": task.task_id,
        "creationDate": seconds(task.created_at),
        "lastModifiedDate": seconds(task.modified_at),
        "templateBody": task.body,
        "inputFileBucket": task.bucket,
        "inputFileKey": task.key,
        "roleArn": task.role_arn,
        "status": task.status.value,
        "message": task.message,
        "successCount": task.succeeded,
        "failureCount": task.failed,
        "percentageProgress": 100 * task.done // task.total if task.total else 0,
    }
