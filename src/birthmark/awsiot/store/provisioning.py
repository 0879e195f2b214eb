"""Provisioning templates, unactivated certificates, and bulk registrations with the result of each line."""

from sqlalchemy import Index, bindparam, exists, func, or_, select, update

from birthmark.awsiot.model import (
    OwnedCertificate,
    ProvisioningTemplate,
    RegistrationTask,
    TaskLine,
    TaskStatus,
    TemplateVersion,
)
from birthmark.awsiot.store.certificates_and_access_keys import certificates
from birthmark.awsiot.store.registry import thing_principals, things
from birthmark.store import Statement, insert, partial_index, statement
from birthmark.store.row_mapper import RowMapper
from birthmark.store.table_statements import change, find, guard_unchanged, page, remove

TEMPLATES = RowMapper(ProvisioningTemplate, is_enabled="enabled")
templates = TEMPLATES.table("aws_templates", "name")
ADD = insert(templates, ignore_existing=True)
GET = find(templates)
LIST = page(templates, "name")
_STATE = ("description", "enabled", "role_arn", "hook", "default_version", "last_version", "generation_id")
UPDATE = change(templates, (*_STATE, "modified_at"), "name", "generation_id")
DELETE = remove(templates, "name", "generation_id")
TEMPLATE_IS_THERE = guard_unchanged(templates, "name")
TEMPLATE_COUNT = statement(select(func.count().label("count")).select_from(templates))

VERSIONS = RowMapper(TemplateVersion)
template_versions = VERSIONS.table("aws_template_versions", "template", "version")
ADD_VERSION = insert(template_versions)
GET_VERSION = find(template_versions)
ALL_VERSIONS = find(template_versions, "template", order=template_versions.c.version.desc(), limit=100)
DELETE_VERSION = remove(template_versions)
DELETE_VERSIONS = remove(template_versions, "template")

OWNED = RowMapper(OwnedCertificate)
owned = OWNED.table("aws_owned_certificates", "certificate_id")
Index("aws_owned_certificates_digest", owned.c.digest, unique=True)
Index("aws_owned_certificates_principal", owned.c.principal, owned.c.until)
ADD_OWNED = insert(owned)
BY_DIGEST = find(owned, "digest")
DROP_OWNED = remove(owned, "certificate_id")
OWNED_COUNT = statement(
    select(func.count().label("count")).where(
        owned.c.principal == bindparam("principal"), owned.c.until > bindparam("now")
    )
)
_GOES = certificates.c.until.is_not(None)
partial_index("aws_certificates_until", certificates.c.until, condition=_GOES)
DUE = find(certificates, certificates.c.until <= bindparam("now"), of=("id",), order=certificates.c.until, limit=100)
DROP_DUE = remove(certificates, "id", certificates.c.until <= bindparam("now"))
"""Deletes expired certificates; a provisioned certificate has no deadline."""
DETACH_THINGS = remove(thing_principals, "certificate_id")
KEEP = change(certificates, ("status", "modified_at", "customer_version", "until"), "id", "customer_version")
MARK_CLAIM = change(
    certificates,
    ("claim",),
    "id",
    certificates.c.claim.is_(None),
    ~exists().where(thing_principals.c.certificate_id == certificates.c.id),
)
SET_CLAIM = change(certificates, ("claim",), "id")
NOBODY_ELSES = guard_unchanged(
    things,
    "name",
    ~exists().where(
        thing_principals.c.thing == things.c.name,
        thing_principals.c.certificate_id != bindparam("certificate_id"),
        thing_principals.c.certificate_id != bindparam("kept"),
    ),
)
"""Requires the thing to have no other device's certificate; runs after the thing is locked.

On PostgreSQL, a statement that had to wait sees the rows as they were before.
"""
OF_CA_COUNT = statement(select(func.count().label("count")).where(certificates.c.ca_id == bindparam("ca_id")))

TASKS = RowMapper(RegistrationTask)
tasks = TASKS.table("aws_tasks", "task_id", sealed=["link"])
Index("aws_tasks_status", tasks.c.status, tasks.c.task_id)
ADD_TASK = insert(tasks)
GET_TASK = find(tasks)
LIST_TASKS = page(
    tasks, "task_id", or_(bindparam("status") == "", tasks.c.status == bindparam("status")), of=("task_id",)
)
RUNNING = find(tasks, tasks.c.status == TaskStatus.IN_PROGRESS.value, order=tasks.c.created_at, limit=100)


def _step(column: str) -> Statement:
    """Return an UPDATE that counts one more processed line."""
    fitting = [tasks.c[name] == bindparam(f"key_{name}") for name in ("task_id", "done", "status")]
    values = {"done": tasks.c.done + 1, column: tasks.c[column] + 1, "modified_at": bindparam("modified_at")}
    return statement(update(tasks).where(*fitting).values(values))


STEP = {True: _step("succeeded"), False: _step("failed")}
BEGIN = change(tasks, ("total", "modified_at"), "task_id", "done", "status")
END = change(tasks, ("status", "message", "modified_at"), "task_id", "status")

LINES = RowMapper(TaskLine, is_done="done")
task_lines = LINES.table("aws_task_lines", "task_id", "line")
ADD_LINE = insert(task_lines)
LINES_OF = page(task_lines, "line", "task_id", "done")
FORGET_LINES = remove(task_lines, "task_id")
FORGET_TASK = remove(tasks, "task_id", tasks.c.status != TaskStatus.IN_PROGRESS.value)
OLD_TASKS = find(
    tasks,
    tasks.c.modified_at <= bindparam("before"),
    tasks.c.status != TaskStatus.IN_PROGRESS.value,
    of=("task_id",),
    limit=10,
)
