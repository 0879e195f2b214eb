"""Template of a shipment's devices: name, tags, twin, Edge flag, policy, thing type, groups.

In:   TOML, with every key shown in `EXAMPLE`; texts may refer to members of a list entry, as `{unique_id}`. Out:  an
`EnrollmentTemplate`, and from it one request per device. Raises `TemplateInvalidError` with the line, and per device
`TemplateUnfilledError`.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from string import Formatter
from typing import Any

import msgspec

from birthmark.awsiot.model import parse_thing_name
from birthmark.documents.document_limits import DocumentProblem, check
from birthmark.dps.model import parse_device_id
from birthmark.errors import InvalidRequestError
from birthmark.fleet.enrollment_target import EnrollmentRequest, ShippedCertificate
from birthmark.iothub.rules.twins import PROPERTIES, TAGS
from birthmark.manifests.manifest_entry import ManifestEntry
from birthmark.text_file_encodings import to_lines
from birthmark.toml_validation import TomlError, lines_of, mistakes_in, parse

MAX_BYTES = 64 * 1024
_WIDTH = re.compile(r"0?[1-9]?")
EXAMPLE = (
    "# Variables in texts: {names};\n# for a table (CSV), also any other column, as {{csv.site}}.\n# {{number:06}} "
    'is the entry\'s number with leading zeros.\n\ndevice_id = "gateway-{{unique_id}}"     # default: the '
    "certificate's common name\n\n[azure]\nedge = true                           # an IoT Edge device\n# hub = "
    '"{{csv.hub}}"                   # linked hub for the assignment; default: any\n# issue = "device"           '
    "         # policy that issues a certificate to a device that registers with a CSR\n\n[azure.tags]               "
    '           # initial tags of the twin\nsite = "Osaka"\npart = '
    '"{{part_number}}"\n\n[azure.desired]\ninterval = 30\n\n[aws]\npolicy = "device"                     # these '
    'three must exist in the account\nthing_type = "gateway"\ngroups = ["line-3"]\n\n[aws.attributes]\npart = '
    '"{{part_number}}"\n'
)


class TemplateInvalidError(InvalidRequestError):
    """The template is not valid."""

    code = "enroll.template_invalid"
    cause = "{file}:{line}: {detail}."
    fix = "Compare your template with a complete one: `birthmark device template`"
    detail: str
    file: Path
    line: int


class TemplateUnfilledError(InvalidRequestError):
    """The entry lacks a value of the template."""

    code = "enroll.template_unfilled"
    cause = "The entry of {device} has {lack} {name}, which {key} of the template uses{has}."
    fix = "Add the value to the list, or change the template. To list the variables: `birthmark device template`"
    device: str
    has: str
    key: str
    lack: str = "no"
    name: str


class NameTakenTwiceError(InvalidRequestError):
    """The name of the device is not unique."""

    code = "enroll.name_taken_twice"
    cause = "The template gives {device} the name {name}, which entry {before} already has."
    fix = (
        "In the template's device_id, use a unique variable, such as `{{unique_id}}`. To list the variables: "
        "`birthmark device template`"
    )
    before: int
    device: str
    name: str


class NameNotAllowedError(InvalidRequestError):
    """The name is not valid at the cloud."""

    code = "enroll.name_not_allowed"
    cause = "{cloud} does not accept the name '{name}': a name must have {allowed}."
    fix = "Set another name through device_id in a template. To print a complete template: `birthmark device template`"
    allowed: str
    cloud: str
    name: str


def check_name(name: str, *, is_azure: bool) -> None:
    """Raise `NameNotAllowedError` before a cloud request, also in a dry run."""
    parse, cloud, letters = _NAMED_BY[is_azure]
    try:
        parse(name)
    except InvalidRequestError as error:
        allowed = f"1 to 128 letters, digits and {letters}"
        raise NameNotAllowedError(cloud=cloud, name=name[:128], allowed=allowed) from error


_NAMED_BY: Mapping[bool, tuple[Callable[[str], str], str, str]] = {
    True: (parse_device_id, "Azure", "- . % _ * ? ! ( ) , : = @ $ '"),
    False: (parse_thing_name, "AWS IoT", ": _ -"),
}


class _Azure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    edge: bool = False
    hub: str | None = None
    issue: str | None = None
    tags: dict[str, Any] = {}
    desired: dict[str, Any] = {}


class _Aws(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    policy: str | None = None
    thing_type: str | None = None
    groups: tuple[str, ...] = ()
    attributes: dict[str, str] = {}


class EnrollmentTemplate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of every device, with unfilled texts."""

    device_id: str | None = None
    azure: _Azure = _Azure()
    aws: _Aws = _Aws()

    def wish(self, entry: ManifestEntry, number: int, certificate: ShippedCertificate) -> EnrollmentRequest:
        """Return the request for entry `number`. Raise `TemplateUnfilledError`."""
        facts: dict[str, str | int | None] = {}

        def filled(key: str, value: Any) -> Any:
            if value and not facts:
                facts.update(facts_of(entry, number))
            return _filled(key, value, facts) if value else value

        return EnrollmentRequest(
            entry.device_id if self.device_id is None else filled("device_id", self.device_id),
            certificate,
            is_edge=self.azure.edge,
            hub=filled("azure.hub", self.azure.hub),
            issue=filled("azure.issue", self.azure.issue),
            tags=filled("azure.tags", self.azure.tags),
            desired=filled("azure.desired", self.azure.desired),
            policy=filled("aws.policy", self.aws.policy),
            thing_type=filled("aws.thing_type", self.aws.thing_type),
            attributes=filled("aws.attributes", self.aws.attributes),
            groups=tuple(filled("aws.groups", self.aws.groups)),
        )


def facts_of(entry: ManifestEntry, number: int) -> dict[str, str | int | None]:
    """Return the values that a text may refer to."""
    intake = entry.intake
    return {
        "common_name": entry.common_name,
        "unique_id": entry.unique_id,
        "number": number,
        "part_number": entry.part_number,
        "model": entry.model,
        "group_id": entry.group_id,
        "thumbprint": entry.thumbprint.hex() if entry.thumbprint else None,
        "board": intake.board if intake else None,
        "operator": intake.operator if intake else None,
        "station": intake.station if intake else None,
        **{_CSV + name: value for name, value in entry.columns},
    }


NAMES = ("common_name", "unique_id", "number", "part_number", "model", "group_id", "thumbprint")
NAMES_OF_INTAKE = ("board", "operator", "station")
_CSV = "csv."


def example() -> str:
    """Return a template with every key."""
    several = ", ".join(f"{{{name}}}" for name in NAMES)
    of_intake = ", ".join(f"{{{name}}}" for name in NAMES_OF_INTAKE)
    return EXAMPLE.format(names=f"{several};\n# and of a bundle of `birthmark chip intake`: {of_intake}")


def parse_template(text: str, file: Path) -> EnrollmentTemplate:
    """Return the template in a file's text. Raise `TemplateInvalidError`."""
    if len(text) > MAX_BYTES:
        raise TemplateInvalidError(file=file, line=1, detail=f"it is larger than {MAX_BYTES} bytes")
    lines = lines_of(text)
    try:
        given = parse(text)
        template = msgspec.convert(given, EnrollmentTemplate)
    except TomlError as error:
        refusal = TemplateInvalidError(file=file, line=error.line, detail=error.detail)
        if command := to_lines(file, text):
            refusal.quote(fix=f"Convert its line endings to LF, and use that file: `{command}`")
        raise refusal from error
    except msgspec.ValidationError as error:
        mistake = mistakes_in(given, EnrollmentTemplate, text)[0]
        raise TemplateInvalidError(file=file, line=mistake.line or 1, detail=mistake.what) from error
    for key, detail in _problems(template):
        line = next((lines[key[:end]] for end in range(len(key), 0, -1) if key[:end] in lines), 1)
        raise TemplateInvalidError(file=file, line=line, detail=f"{'.'.join(key)}: {detail}")
    for key, value in _texts(given, ()):
        if (problem := _problem(value)) is not None:
            line = next((lines[key[:end]] for end in range(len(key), 0, -1) if key[:end] in lines), 1)
            raise TemplateInvalidError(file=file, line=line, detail=f"{'.'.join(key)}: {problem}")
    return template


def _problems(template: EnrollmentTemplate) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield errors that every cloud rejects, with their key: a dry run would not detect them."""
    if template.device_id == "":
        yield ("device_id",), "a device has a name; leave it out, or name something"
    if template.azure.hub == "":
        yield ("azure", "hub"), "it has a name, or is left out"
    for name in ("policy", "thing_type"):
        if getattr(template.aws, name) == "":
            yield ("aws", name), "it has a name, or is left out"
    if "" in template.aws.groups:
        yield ("aws", "groups"), "each has a name"
    for name, part, shape in (("tags", template.azure.tags, TAGS), ("desired", template.azure.desired, PROPERTIES)):
        try:
            check(part, shape)
        except DocumentProblem as problem:
            yield ("azure", name, *problem.path.split(".")), problem.problem.value


def _texts(value: Any, key: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    """Return every text, and every value that JSON does not support, with its key."""
    is_number = isinstance(value, int | float) and math.isfinite(value)
    if not (is_number or isinstance(value, dict | list | tuple | None)):
        return [(key, value)]
    if isinstance(value, dict):
        return [found for name, each in value.items() for found in _texts(each, (*key, name))]
    if isinstance(value, list | tuple):
        return [found for each in value for found in _texts(each, key)]
    return []


def _problem(text: Any) -> str | None:
    """Return the error in a text with placeholders."""
    if not isinstance(text, str):
        return f"no twin holds {text}; write it as a text"
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        return f"{error}; for a literal brace, write {{{{"
    for _, name, spec, conversion in parts:
        if name is None:
            continue
        if name not in NAMES + NAMES_OF_INTAKE and not (name.startswith(_CSV) and _as_column(name) != _CSV):
            several = ", ".join(NAMES + NAMES_OF_INTAKE)
            return f"{{{name[:40]}}} is not a variable; the variables are {several}, and csv.NAME for a table column"
        if conversion or (spec and (name != "number" or not _WIDTH.fullmatch(spec))):
            return f"{{{name}}} must have nothing after its name; only {{number:06}} may have a width"
    return None


def _filled(key: str, value: Any, facts: Mapping[str, str | int | None]) -> Any:
    if isinstance(value, dict):
        return {name: _filled(f"{key}.{name}", each, facts) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(key, each, facts) for each in value]
    if not isinstance(value, str):
        return value
    text = ""
    for before, name, spec, _ in Formatter().parse(value):
        text += before
        if name is None:
            continue
        if (fact := facts.get(_as_column(name))) in (None, ""):
            device = str(facts["common_name"] or facts["unique_id"])
            lack = "an empty" if fact == "" else "no"
            raise TemplateUnfilledError(device=device, key=key, lack=lack, name=name, has=_has(name, facts))
        text += format(fact, spec or "")
    return text


def _as_column(name: str) -> str:
    """Return a name in the notation of table columns: `{csv.Site Name}` is `{csv.site_name}`."""
    return name.strip().lower().replace(" ", "_") if name.startswith(_CSV) else name


def _has(name: str, facts: Mapping[str, str | int | None]) -> str:
    """Return a hint with the available columns, for a missing column."""
    if not name.startswith(_CSV) or _as_column(name) in facts:
        return ""
    several = ", ".join(sorted(found.removeprefix(_CSV) for found in facts if found.startswith(_CSV)))
    return f"; its table has {several}" if several else "; the list is not a table with additional columns"
