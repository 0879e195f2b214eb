"""What devices ask for on `$aws/certificates/…` and `$aws/provisioning-templates/…`, and are answered: JSON and CBOR
(developer guide, "Device provisioning MQTT API"); templates and bulk registrations as the control plane has them."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from birthmark.awsiot.model import Account, ProvisioningTemplate, RegistrationTask, TemplateVersion
from birthmark.awsiot.wire import BodyInvalidError, seconds
from birthmark.awsiot.wire.cbor import CborError, decode, encode
from birthmark.untrusted_text import read_json

MAX_REQUEST_BYTES = 98_304
"""What parameters of 64 KiB take in JSON."""


class CsrRequest(msgspec.Struct, rename="camel"):
    certificate_signing_request: str = ""


class ProvisionRequest(msgspec.Struct, rename="camel"):
    certificate_ownership_token: str = ""
    parameters: dict[str, str] = {}


class HookAnswer(msgspec.Struct, rename="camel"):
    """What a pre-provisioning hook says."""

    allow_provisioning: bool
    parameter_overrides: dict[str, str] | None = None


def parse_csr_request(payload: bytes, form: str) -> str:
    """Return the request that a certificate is asked for by. Raise `BodyInvalidError`."""
    found: CsrRequest = _parsed(payload, form, CsrRequest)
    return found.certificate_signing_request


def parse_provision(payload: bytes, form: str) -> ProvisionRequest:
    """Return what is asked of a template. Raise `BodyInvalidError`."""
    found: ProvisionRequest = _parsed(payload, form, ProvisionRequest)
    return found


def parse_hook_answer(value: Any) -> HookAnswer:
    """Return the answer of a hook. Raise `msgspec.ValidationError`."""
    return msgspec.convert(value, HookAnswer)


def answer_body(answer: Mapping[str, Any], form: str) -> bytes:
    """Return an answer in the form that was asked."""
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


def template_entry_json(account: Account, known: ProvisioningTemplate) -> dict[str, Any]:
    """Return an entry of ListProvisioningTemplates."""
    return {
        "templateArn": account.arn("provisioningtemplate", known.name),
        "templateName": known.name,
        "description": known.description,
        "creationDate": seconds(known.created_at),
        "lastModifiedDate": seconds(known.modified_at),
        "enabled": known.is_enabled,
        "type": known.kind.value,
    }


def template_json(account: Account, known: ProvisioningTemplate, version: TemplateVersion) -> dict[str, Any]:
    """Return what DescribeProvisioningTemplate answers."""
    hook = {} if known.hook is None else {"preProvisioningHook": json.loads(known.hook)}
    return (
        template_entry_json(account, known)
        | {
            "defaultVersionId": known.default_version,
            "templateBody": version.body,
            "provisioningRoleArn": known.role_arn,
        }
        | hook
    )


def template_version_json(known: ProvisioningTemplate, version: TemplateVersion) -> dict[str, Any]:
    """Return an entry of ListProvisioningTemplateVersions."""
    return {
        "versionId": version.version,
        "creationDate": seconds(version.created_at),
        "isDefaultVersion": version.version == known.default_version,
    }


def task_json(task: RegistrationTask) -> dict[str, Any]:
    """Return what DescribeThingRegistrationTask answers."""
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
