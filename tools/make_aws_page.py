"""Write the tables of docs/reference/aws-iot.md: of each operation that is served, which test shows it by which client.

python tools/make_aws_page.py

A table of the page whose header begins with "operation" is written anew from the names in its first column. What a test
uses is read from its source: `iot.create_thing(…)` is boto3, "create-thing" or `aws iot create-thing` the AWS CLI, and
what is told to a device's process one of the vendor's SDKs. Of several tests that one is named whose name is nearest.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import birthmark
from birthmark.awsiot.http.app import handlers
from birthmark.awsiot.http.operation_routing_and_request_members import OPERATIONS, AwsOperation
from birthmark.awsiot.model import Account
from birthmark.awsiot.service import AwsIot
from birthmark.clock_and_entropy import SystemClock, SystemEntropy

TOP = Path(birthmark.__file__).parents[2]
TARGET = TOP / "docs" / "reference" / "aws-iot.md"
TESTS = TOP / "tests" / "conformance" / "aws"
PAGES = (TOP / "docs" / "tutorial", TOP / "docs" / "howto")
HEAD = "| operation | request | boto3 | AWS CLI | device SDKs over MQTT |\n|---|---|---|---|---|\n"
_OTHERS = frozenset({"publisher", "keeper", "device"})
"""Names in the tests that are no clients of boto3, and have a method of an operation's name."""
_LAST = frozenset({"test_refusals", "test_kept_or_refused", "test_unserved"})
"""What is named where there is nothing better: these show what is refused, or members one by one."""
_ELSEWHERE = frozenset({"test_enroll_at_moto"})
"""These ask another server."""
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"\baws (?:--\S+ )*iot(?:-data|-jobs-data)? ([a-z0-9-]+)")
_TYPED = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)+")
_WORDS = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")

AREAS: Sequence[tuple[str, str, str]] = (
    ("Commands", "not implemented yet", r"Command"),
    ("Messages to one client", "not implemented yet", r"DirectMessage"),
    ("Billing groups", "out of scope: no billing", r"BillingGroup"),
    ("Certificate transfers", "out of scope: single account", r"CertificateTransfer|^TransferCertif|Outgoing"),
    ("Domain configurations", "out of scope: the server has its own names and certificates", r"DomainConfiguration"),
    (
        "Certificate providers",
        "out of scope: the server's CA or AWS Private CA signs",
        r"CertificateProvider",
    ),
    ("Fleet metrics", "out of scope", r"FleetMetric"),
    (
        "Device Defender: audits, violations, metrics and mitigation",
        "out of scope",
        r"Audit|SecurityProfile|Mitigation|Violation|CustomMetric|Dimension|MetricValues|BehaviorModel",
    ),
    ("Software packages, streams and OTA updates", "out of scope", r"Package|Sbom|Stream|OTAUpdate"),
    ("Service logging and encryption", "replaced by the server's log and database", r"Logging|Encryption"),
)
"""Title, why, and which operations: each that is not served is in the first that fits."""

DEVICES: Mapping[str, str] = {
    "CreateKeysAndCertificate": "keys",
    "CreateCertificateFromCsr": "csr",
    "RegisterThing": "register",
    "Publish": "publish",
    "GetThingShadow": "get_shadow",
    "UpdateThingShadow": "update_shadow",
    "DeleteThingShadow": "delete_shadow",
    "GetPendingJobExecutions": "get_pending_job_executions",
    "StartNextPendingJobExecution": "start_next_pending_job_execution",
    "DescribeJobExecution (iot-jobs-data)": "describe_job_execution",
    "UpdateJobExecution": "update_job_execution",
}
"""What a device asks for by MQTT as well, and what the tests tell its process to do for it."""
NO_DEVICE = "HTTP only"
NO_CLI = "as boto3"
"""The AWS CLI makes its requests from the same models, by the same library."""


@dataclass(frozen=True, slots=True)
class Use:
    """A test that uses an operation, and of how many others it does."""

    file: str
    name: str
    is_refused: bool
    others: int

    @property
    def label(self) -> str:
        return f"`{self.file}::{self.name}`" + " (refused)" * self.is_refused


@cache
def served() -> frozenset[str]:
    """Return the names of the operations that have a handler."""
    nobody: Any = SimpleNamespace(on_events=lambda _hear: None)
    nothing: Any = None
    aws = AwsIot(Account("0" * 12, "us-east-1", "localhost"), nobody, SystemClock(), SystemEntropy(), nothing)
    return frozenset(handlers(aws, nothing, nothing, SystemEntropy()))


# ---- what the tests use


def evidence() -> tuple[Mapping[str, list[Use]], Mapping[str, list[Use]], Mapping[str, list[Use]]]:
    """Return which tests use an operation by boto3, by the AWS CLI and, by the word for it, by a device's SDK."""
    by_boto3, by_cli, by_device = (defaultdict[str, list[Use]](list) for _ in range(3))
    for file in sorted(one for one in TESTS.glob("test_*.py") if one.stem not in _ELSEWHERE):
        for name, used in _uses(ast.parse(file.read_text())).items():
            for found, into in ((used.verbs, by_boto3), (used.commands, by_cli), (used.told, by_device)):
                for one, is_refused in found.items():
                    into[one].append(Use(file.stem, name, is_refused, len(found)))
    for folder in PAGES:
        for page in sorted(one for one in folder.glob("*.md") if not one.name.endswith(".ja.md")):
            run = "\n".join(_BLOCK.findall(page.read_text()))  # what is only spoken of shows nothing
            for command in sorted(set(_COMMAND.findall(run))):
                by_cli[command.replace("-", "_")].append(Use(page.stem, "", is_refused=False, others=0))
    return by_boto3, by_cli, by_device


@dataclass(slots=True)
class _Used:
    """Verbs of boto3, commands of the AWS CLI, words to devices; each with whether it is refused wherever it is."""

    verbs: dict[str, bool]
    commands: dict[str, bool]
    told: dict[str, bool]

    def add(self, other: "_Used") -> None:
        for mine, theirs in ((self.verbs, other.verbs), (self.commands, other.commands), (self.told, other.told)):
            for name, is_refused in theirs.items():
                mine[name] = mine.get(name, True) and is_refused


_VERBS = frozenset(one.verb for one in OPERATIONS)
_HANDLED = frozenset(one.handled_by for one in OPERATIONS)
_BY_DEVICE, _DEVICES_CLIENT = "_by_device", "data"
"""Of two operations with one name, that which the tests ask by their client of a data plane."""


def _uses(module: ast.Module) -> Mapping[str, _Used]:
    """Return what each test of a module uses, itself and by the module's functions that it calls."""
    functions = {node.name: node for node in module.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    own = {name: _own(node) for name, node in functions.items()}

    def whole(name: str, seen: set[str]) -> _Used:
        used = _Used({}, {}, {})
        used.add(own[name])
        for called in sorted(_called(functions[name]) & functions.keys() - seen):
            used.add(whole(called, seen | {called}))
        return used

    return {name: whole(name, {name}) for name in functions if name.startswith("test_")}


def _called(function: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}


def _own(function: ast.AST) -> _Used:
    used = _Used({}, {}, {})
    refused = {id(node) for part in _refused(function) for node in ast.walk(part)}
    told = {id(node) for part in ast.walk(function) if isinstance(part, ast.Assert) for node in ast.walk(part)}
    for node in ast.walk(function):
        is_refused = id(node) in refused
        if isinstance(node, ast.Attribute) and node.attr in _VERBS and ast.unparse(node.value) not in _OTHERS:
            verb = node.attr + _BY_DEVICE if ast.unparse(node.value) == _DEVICES_CLIENT else node.attr
            verb = verb if verb in _HANDLED else node.attr
            used.verbs[verb] = used.verbs.get(verb, True) and is_refused
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if "_" in node.value and node.value in _VERBS:  # get_paginator("list_things")
                used.verbs[node.value] = used.verbs.get(node.value, True) and is_refused
            typed = _COMMAND.findall(node.value) if id(node) not in told else []  # else it is a fix that is looked at
            for command in [*typed, *([node.value] if _TYPED.fullmatch(node.value) else [])]:
                if (verb := command.replace("-", "_")) in _VERBS:
                    used.commands[verb] = used.commands.get(verb, True) and is_refused
        elif isinstance(node, ast.Call):
            for word in _told(node):
                used.told[word] = used.told.get(word, True) and is_refused
    return used


def _told(call: ast.Call) -> Iterator[str]:
    """Yield what a device's process is told to do: `device("keys")`, `ask(device, f"get_{kind}", …)`."""
    for argument in call.args[:2]:
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            yield argument.value
        elif isinstance(argument, ast.JoinedStr) and isinstance(argument.values[0], ast.Constant):
            yield f"{argument.values[0].value}shadow"


def _refused(function: ast.AST) -> Iterator[ast.AST]:
    """Yield the parts of a test where it waits for a refusal."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and "refused" in node.func.id:
            yield node
        elif isinstance(node, ast.With) and any("raises" in ast.unparse(item.context_expr) for item in node.items):
            yield from node.body


def nearest(operation: AwsOperation, uses: Sequence[Use]) -> Use | None:
    """Return the test that is named: it shows an effect, has the operation's words in its name, and does little."""
    words = {word.lower().rstrip("s") for word in _WORDS.findall(operation.name)}

    def rank(use: Use) -> tuple[bool, bool, int, int, str]:
        said = {word.rstrip("s") for word in f"{use.file}_{use.name}".split("_")}
        return use.is_refused, use.file in _LAST, -len(words & said), use.others, use.label

    return min(uses, key=rank, default=None)


# ---- the page


def page() -> str:
    """Return the page as it has to be. Raise `ValueError` for an operation that has no place in it."""
    return written(TARGET.read_text())


def written(text: str) -> str:
    """Return a page with its tables and lists written anew."""
    known = {one.title: one for one in OPERATIONS if one.title in served()}
    by_boto3, by_cli, by_device = evidence()
    on_page: list[str] = []

    def row(name: str) -> str:
        if name not in known:
            raise ValueError(f"{name} is on the page and is not served")
        one = known[name]
        on_page.append(name)
        boto3 = nearest(one, by_boto3[one.handled_by])
        cli = nearest(one, by_cli[one.verb])
        device = nearest(one, by_device[DEVICES[name]]) if name in DEVICES else None
        cells = [
            "no test" if boto3 is None else boto3.label,
            f"*{NO_CLI}*" if cli is None else f"[{cli.file}]({_link(cli)})" if not cli.name else cli.label,
            f"*{NO_DEVICE}*" if device is None else device.label,
        ]
        return f"| {name} | {one.method} `{one.path}` | {' | '.join(cells)} |\n"

    def table(found: re.Match[str]) -> str:
        return HEAD + "".join(map(row, re.findall(r"^\| (\w+(?: \([a-z-]+\))?) \|", found["rows"], re.MULTILINE)))

    text = re.sub(r"^\| operation \|.*\n\|[-|]+\n(?P<rows>(?:\|.*\n)+)", table, text, flags=re.MULTILINE)
    if left := sorted(known.keys() - on_page):
        raise ValueError(f"put these into a table of {TARGET.name}, each in a row of its own: {', '.join(left)}")
    text = _between(text, "served", _served(len(known)))
    return _between(text, "not served", _not_served(frozenset(known)))


def _link(use: Use) -> str:
    (at,) = (folder for folder in PAGES if (folder / f"{use.file}.md").exists())
    return f"../{at.name}/{use.file}.md"


def _served(count: int) -> str:
    return (
        f"{count} of the {len(OPERATIONS)} operations of the service models `iot`, `iot-data` and `iot-jobs-data` are "
        "implemented.\nEach cell names a test in `tests/conformance/aws` that uses the operation with that unmodified "
        "client, or a page\nwhose commands run as a test.\n\n"
        f"- *{NO_CLI}*: no test with the AWS CLI, which uses the same models and library as boto3\n"
        f"- *{NO_DEVICE}*: not available in device SDKs over MQTT\n"
    )


def _not_served(known: frozenset[str]) -> str:
    """Return the list of what is not served, by area. Raise `ValueError` for what is in none."""
    areas: dict[str, set[str]] = {title: set() for title, _, _ in AREAS}
    for name in {one.title for one in OPERATIONS} - known:
        titles = [title for title, _, which in AREAS if re.search(which, name)]
        if not titles:
            raise ValueError(f"{name} is not served and in none of AREAS")
        areas[titles[0]].add(name)
    lines = ["| area | reason | operations |\n|---|---|---|\n"]
    lines += [f"| {title} | {why} | {', '.join(sorted(areas[title]))} |\n" for title, why, _ in AREAS if areas[title]]
    return "".join(lines)


def _between(text: str, what: str, inside: str) -> str:
    begin, end = f"<!-- {what} -->\n", f"<!-- /{what} -->"
    before, _, rest = text.partition(begin)
    return f"{before}{begin}{inside}{end}{rest.partition(end)[2]}"


def without_test() -> Sequence[str]:
    """Return the operations that are served and whose effect no test shows by any client."""
    by_boto3, by_cli, by_device = evidence()

    def uses(one: AwsOperation) -> Sequence[Use]:
        return [
            *by_boto3[one.handled_by],
            *by_cli[one.verb],
            *(by_device[DEVICES[one.title]] if one.title in DEVICES else ()),
        ]

    known = [one for one in OPERATIONS if one.title in served()]
    return [one.title for one in known if all(use.is_refused for use in uses(one))]


if __name__ == "__main__":
    TARGET.write_text(page())
    print(f"{len(served())} of {len(OPERATIONS)} operations; without a test: {', '.join(without_test()) or 'none'}")
