"""Provisioning templates and their versions."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from birthmark.awsiot.model import ProvisioningTemplate, TemplateType, TemplateVersion, parse_template_name
from birthmark.awsiot.rules.provisioning_plan_model import TemplateInvalidError
from birthmark.awsiot.rules.provisioning_templates import CERTIFICATE, parse_template
from birthmark.awsiot.service.base import AccountService
from birthmark.awsiot.service.tags import NO_TAGS, Tags, tag_deletes, written
from birthmark.awsiot.store import provisioning as store
from birthmark.clock_and_entropy import new_uuid
from birthmark.errors import ChangedMeanwhileError, ConflictError, NotFoundError, PolicyError
from birthmark.store import Changes
from birthmark.store.pagination import Page, page_of

MAX_TEMPLATES = 256
MAX_VERSIONS = 5


class UnknownTemplateError(NotFoundError):
    """The provisioning template or template version does not exist."""

    code = "awsiot.unknown_template"
    message = "Provisioning template not found (name={template}, version={version})"
    fix = "List templates: `birthmark aws template ls`. Names are case-sensitive."
    template: str
    version: object


class TemplateExistsError(ConflictError):
    """A provisioning template with this name exists already."""

    code = "awsiot.template_exists"
    message = "Provisioning template {template} already exists"
    fix = (
        "Show the existing template: `birthmark aws template show {template}`. Create a new version of this "
        "template, or choose another name."
    )
    template: str


class TemplateInUseError(ConflictError):
    """The version is the default, or the template has other versions."""

    code = "awsiot.template_in_use"
    message = "The provisioning template {template} cannot be deleted: {detail}"
    fix = "List the template's versions: `{command}`"
    command: str
    detail: str
    template: str


class TooManyTemplateVersionsError(ConflictError):
    """The provisioning template has the maximum number of versions."""

    code = "awsiot.template_versions"
    message = "The provisioning template {template} already has the maximum number of versions (5)"
    fix = (
        "Delete the oldest version that is not the default: `aws iot delete-provisioning-template-version "
        "--template-name {template} --version-id {oldest}`"
    )
    oldest: int
    template: str


class TooManyTemplatesError(PolicyError):
    """The account has the maximum number of provisioning templates."""

    code = "awsiot.template_limit"
    cause = "The account has 256 provisioning templates, the maximum."
    fix = "Delete an unused template. List templates: `birthmark aws template ls`"


class ProvisioningTemplates(AccountService):
    """The templates of the account."""

    async def get(self, name: str) -> ProvisioningTemplate:
        """Return a template. Raise `UnknownTemplateError`."""
        row = await self.database.one(store.GET, name=name)
        if row is None:
            raise UnknownTemplateError(template=name[:36], version="default")
        return store.TEMPLATES.of(row)

    async def version(self, name: str, version: int | None = None) -> tuple[ProvisioningTemplate, TemplateVersion]:
        """Return a template and one of its versions, the default if None. Raise `UnknownTemplateError`."""
        template = await self.get(name)
        wanted = template.default_version if version is None else version
        row = await self.database.one(store.GET_VERSION, template=name, version=wanted)
        if row is None:
            raise UnknownTemplateError(template=name, version=wanted)
        return template, store.VERSIONS.of(row)

    async def versions(self, name: str) -> tuple[ProvisioningTemplate, Sequence[TemplateVersion]]:
        """Return a template and all of its versions, newest first."""
        template = await self.get(name)
        rows = await self.database.all(store.ALL_VERSIONS, template=name)
        return template, [store.VERSIONS.of(row) for row in rows]

    async def create(
        self,
        name: str,
        body: str,
        kind: TemplateType,
        *,
        description: str,
        is_enabled: bool,
        role_arn: str,
        hook: str | None,
        tags: Tags = NO_TAGS,
        actor: str,
    ) -> ProvisioningTemplate:
        """Create a template with one version. Raise `TemplateInvalidError` or `TemplateExistsError`."""
        known = parse_template_name(name)
        check_body(body, kind)
        if kind is TemplateType.JITP and hook is not None:
            raise TemplateInvalidError(detail="a JITP template has no preProvisioningHook")
        row = await self.database.one(store.TEMPLATE_COUNT)
        if row is not None and row["count"] >= MAX_TEMPLATES:
            raise TooManyTemplatesError
        now = self.clock.now()
        made = ProvisioningTemplate(
            known, kind, description, is_enabled, role_arn, hook, 1, 1, new_uuid(self.entropy), now, now
        )
        exists = TemplateExistsError(template=known)
        changes = Changes().run(store.ADD, expect=1, otherwise=exists, **store.TEMPLATES.row(made))
        changes.run(store.ADD_VERSION, **store.VERSIONS.row(TemplateVersion(known, 1, body, now)))
        changes.merge(written("provisioningtemplate", known, tags))
        await self.database.commit(changes.audit(actor, "awsiot.template_create", known, type=kind.value))
        return made

    async def update(
        self,
        name: str,
        *,
        description: str | None,
        is_enabled: bool | None,
        default_version: int | None,
        role_arn: str | None,
        hook: str | None,
        removes_hook: bool,
        actor: str,
    ) -> None:
        """Change a template; None leaves a value unchanged. Raise `UnknownTemplateError`."""
        template = await self.get(name)
        if default_version is not None:
            await self.version(name, default_version)
        if hook is not None and template.kind is TemplateType.JITP:
            raise TemplateInvalidError(detail="a JITP template has no preProvisioningHook")
        made = replace(
            template,
            description=template.description if description is None else description,
            is_enabled=template.is_enabled if is_enabled is None else is_enabled,
            role_arn=role_arn or template.role_arn,
            hook=None if removes_hook else hook or template.hook,
            default_version=default_version or template.default_version,
        )
        await self._change(Changes(), made, actor=actor)

    async def add_version(self, name: str, body: str, *, as_default: bool, actor: str) -> TemplateVersion:
        """Add a version. Raise `TemplateInvalidError` or `TooManyTemplateVersionsError`."""
        template, present = await self.versions(name)
        check_body(body, template.kind)
        if len(present) >= MAX_VERSIONS:
            oldest = min(version.version for version in present if version.version != template.default_version)
            raise TooManyTemplateVersionsError(template=name, oldest=oldest)
        number = template.last_version + 1
        made = TemplateVersion(name, number, body, self.clock.now())
        changes = Changes().run(store.ADD_VERSION, **store.VERSIONS.row(made))
        default = number if as_default else template.default_version
        await self._change(changes, replace(template, last_version=number, default_version=default), actor=actor)
        return made

    async def delete_version(self, name: str, version: int, *, actor: str) -> None:
        """Remove a version that is not the default. Raise `TemplateInUseError`."""
        template, known = await self.version(name, version)
        if known.version == template.default_version:
            raise _in_use(name, f"version {version} is the default")
        await self._change(Changes().run(store.DELETE_VERSION, template=name, version=version), template, actor=actor)

    async def delete(self, name: str, *, actor: str) -> None:
        """Delete a template with one version. Raise `TemplateInUseError`."""
        template, present = await self.versions(name)
        if len(present) > 1:
            raise _in_use(name, "it has versions besides the default")
        changed = ChangedMeanwhileError(what="The provisioning template")
        seen = {"name": name, "generation_id": template.generation_id}
        changes = Changes().run(store.DELETE, expect=1, otherwise=changed, **seen)
        changes.run(store.DELETE_VERSIONS, template=name)
        changes.merge(tag_deletes("provisioningtemplate", name))
        await self.database.commit(changes.audit(actor, "awsiot.template_delete", name))

    async def page(self, after: str, size: int) -> Page[ProvisioningTemplate]:
        """Return templates by name."""
        rows = await self.database.all(store.LIST, after=after, limit=size + 1)
        return page_of([store.TEMPLATES.of(row) for row in rows], size, [row["name"] for row in rows])

    async def _change(self, changes: Changes, template: ProvisioningTemplate, *, actor: str) -> None:
        """Write a template's new state; requires the generation ID that was read."""
        written = replace(template, generation_id=new_uuid(self.entropy), modified_at=self.clock.now())
        seen: dict[str, Any] = {"key_name": template.name, "key_generation_id": template.generation_id}
        changed = ChangedMeanwhileError(what="The provisioning template")
        changes.run(store.UPDATE, expect=1, otherwise=changed, **seen, **store.TEMPLATES.row(written))
        changes.audit(
            actor,
            "awsiot.template_change",
            template.name,
            default_version=template.default_version,
            enabled=template.is_enabled,
        )
        await self.database.commit(changes)


def hook_arn(hook: str | None) -> str | None:
    """Return the function ARN of a template's pre-provisioning hook; None if it has none."""
    return None if hook is None else str(json.loads(hook)["targetArn"])


def check_body(body: str, kind: TemplateType) -> None:
    """Raise `TemplateInvalidError` for a body that is invalid for this type."""
    template = parse_template(body)
    for certificate in template.of_kind(CERTIFICATE):
        if "CertificateId" not in certificate.properties:
            raise TemplateInvalidError(
                detail=f"the certificate of a {kind.value} template is named by its CertificateId"
            )
    if not template.of_kind(CERTIFICATE):
        raise TemplateInvalidError(detail=f"a {kind.value} template has a certificate")
    if kind is TemplateType.JITP and template.device_configuration:
        raise TemplateInvalidError(detail="a DeviceConfiguration is for templates of fleet provisioning")


def _in_use(name: str, detail: str) -> TemplateInUseError:
    command = f"aws iot list-provisioning-template-versions --template-name {shlex.quote(name)}"
    return TemplateInUseError(template=name, detail=detail, command=command)
