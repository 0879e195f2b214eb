"""Write docs/reference/azure-iot.md: what which client does here, and of each method which test shows its effect.

python tools/make_azure_page.py

What a test uses is read from its source, also from the scripts in it: `.create_module_with_sas(…)` is that method of
Python's SDK. Of several tests that one is named whose name is nearest. A method that no test shows has to be in
`NOT_SERVED`. Operations by client are in `azure_operations.py`: a cell names the module whose source has what that
client calls, or has a reason.
"""

import ast
import importlib
import pkgutil
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import azure.iot.hub as of_hub
import azure.mgmt.iothub.v2023_06_30.operations as managed_hub
import azure.mgmt.iothubprovisioningservices.operations as managed_dps
import provisioningserviceclient as of_dps

import birthmark
from azure_operations import AZ, NODE, OPERATIONS, PYTHON, REASONS, C, Cell, Reason, Seen
from birthmark import dps, iothub
from birthmark.dps.http import device_routes as dps_device_routes
from birthmark.dps.http import service_routes as dps_service_routes
from birthmark.errors import BirthmarkError
from birthmark.iothub.http.device_api import routes as device_routes
from birthmark.iothub.http.queries import routes as query_routes
from birthmark.iothub.http.service_api import routes as service_routes

TOP = Path(birthmark.__file__).parents[2]
TARGET = TOP / "docs" / "reference" / "azure-iot.md"
TESTS = TOP / "tests" / "conformance" / "azure"
_CALL = re.compile(r"\.([a-z][a-z0-9_]+)\(")
_WORD = re.compile(r"[a-z0-9]+")
_LAST = frozenset({"test_kept_or_refused", "test_refusals", "test_unserved", "test_durability"})
"""What is named where there is nothing better."""
CLIENTS: Sequence[tuple[str, Any]] = (
    ("IoTHubRegistryManager", of_hub.IoTHubRegistryManager),
    ("IoTHubConfigurationManager", of_hub.IoTHubConfigurationManager),
    ("IoTHubHttpRuntimeManager", of_hub.IoTHubHttpRuntimeManager),
    ("IoTHubJobManager", of_hub.IoTHubJobManager),
    ("DigitalTwinClient", of_hub.DigitalTwinClient),
    ("ProvisioningServiceClient", of_dps.ProvisioningServiceClient),
)
MANAGED: Sequence[tuple[str, Any]] = (
    ("IotDpsClient.dps_certificate", managed_dps.DpsCertificateOperations),
    ("IotDpsClient.iot_dps_resource", managed_dps.IotDpsResourceOperations),
    ("IotHubClient.certificates", managed_hub.CertificatesOperations),
    ("IotHubClient.iot_hub_resource", managed_hub.IotHubResourceOperations),
)
"""Of Azure's resource manager, whose methods have names that others have too: its tests alone count for it."""
_OF_MANAGED = "test_management"
_REFUSED = "test_what_is_not_served_is_refused_by_its_name"
NOT_SERVED: Mapping[str, str] = {
    "create_registration_state_query": "implemented; the Python SDK fails before it sends a request, Node's works",
}
"""Why a method is not served. One that is shown by a test, too, is not allowed here."""
_SERVICES = "use `birthmark hub` or `birthmark dps` to create, update and delete services"
NOT_MANAGED: Mapping[str, str] = {
    **dict.fromkeys(("begin_create_or_update", "begin_delete", "begin_update", "get_operation_result"), _SERVICES),
    **dict.fromkeys(
        (
            *("begin_create_or_update_private_endpoint_connection", "begin_delete_private_endpoint_connection"),
            *("get_private_endpoint_connection", "get_private_link_resources", "list_private_endpoint_connections"),
            "list_private_link_resources",
        ),
        "out of scope: no private links",
    ),
    **dict.fromkeys(("export_devices", "import_devices", "get_job", "list_jobs"), "not implemented: import and export"),
}
"""The same of Azure's resource manager; all of it is refused as `management.operation_not_served`."""
MANAGED_HERE = frozenset({("IotHubClient.iot_hub_resource", "begin_create_or_update")})
"""Of methods that two clients have, those that one is served by."""
HEAD = """# Azure IoT Hub and DPS operations

This page lists the operations of IoT Hub and the Device Provisioning Service that Birthmark implements, by client and
by SDK method. Each entry names a test in `tests/conformance/azure` that uses the vendor's unmodified client.

Birthmark rejects other operations with a specific error and records them for `birthmark why`. Devices register and
connect over MQTT 3.1.1 and AMQP 1.0, each over TLS and over WebSocket, and over HTTPS. Back ends use AMQP and HTTPS.
See also [differences from Azure](../howto/azure-differences.md).

## Operations by client

| cell | meaning |
|---|---|
| name | test module |
| number | reason for a missing test, listed below the table |
| *manual* | tested manually, because no package registry provides the client |

Manual tests: [the C SDK](../howto/c.md), and [`az iot`](../howto/azure-switch.md#the-az-iot-command-line).

"""
PATHS = """
## HTTPS paths

This list is generated from the route tables. Birthmark also accepts the letter case and trailing slashes that vendor
clients use. Other hub paths return 501 (`iothub.operation_not_served`). For MQTT and AMQP, see the table above.

"""
REFUSED = """
## Refusals of unsupported operations

The client receives an error of its protocol. `birthmark why` shows the code with its cause and fix.

| code | cause |
|---|---|
"""
METHODS = "\n## Methods of the Python service SDKs\n"
_COLUMNS: Sequence[tuple[str, str]] = ((PYTHON, "Python"), (NODE, "Node"), (C, "C"), (AZ, "`az iot`"))


def methods_of(client: Any) -> Sequence[str]:
    """Return the names of what a client can be asked."""
    own = (name for name in vars(client) if not name.startswith("_") and callable(getattr(client, name)))
    return sorted(name for name in own if not name.startswith(("from_", "create_from_")))


@cache
def sources() -> Mapping[str, str]:
    """Return the source of each test, by `module::test`."""
    found: dict[str, str] = {}
    for path in sorted(TESTS.glob("test_*.py")):
        text = path.read_text()
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                source = ast.get_source_segment(text, node) or ""
                if "in_node" not in source and "node(" not in source:
                    found[f"{path.stem}::{node.name}"] = source
    return found


@cache
def uses() -> Mapping[str, Sequence[str]]:
    """Return, by method, the tests whose source calls it, as `module::test`."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for test, source in sources().items():
        for name in set(_CALL.findall(source)):
            found[name].append(test)
    return found


def is_about(test: str, managed: str) -> bool:
    """Say whether a test is one of a client of Azure's resource manager; of none where `managed` is empty."""
    if not managed:
        return not test.startswith(_OF_MANAGED)
    of = managed.partition(".")[2]
    return test.startswith(_OF_MANAGED) and f".{of}" in sources()[test] and not test.endswith(_REFUSED)


def shown_by(method: str, managed: str = "") -> str | None:
    """Return the test whose name is nearest to a method's, None where no test calls it.

    `managed` is the client of a method of Azure's resource manager.
    """
    words = set(_WORD.findall(f"{method} {managed}".lower()))

    def rank(test: str) -> tuple[bool, int, str]:
        module, _, _name = test.partition("::")
        return module in _LAST, -len(words & set(_WORD.findall(test.replace("s_", "_")))), test

    found = [test for test in uses().get(method, ()) if is_about(test, managed)]
    return min(found, key=rank, default=None)


@cache
def _modules() -> Mapping[str, str]:
    """Return the source of each test module."""
    return {path.stem: path.read_text() for path in sorted(TESTS.glob("test_*.py"))}


def module_with(call: str) -> str | None:
    """Return the module that a call stands in most often, None where it stands in none."""
    counts = {name: (name not in _LAST, text.count(call)) for name, text in _modules().items() if call in text}
    return max(sorted(counts), key=lambda name: counts[name], default=None)


def unshown() -> Sequence[str]:
    """Return the cells that name a call which no test makes."""
    return [
        f"{each.title}, {client}: {cell}"
        for each in OPERATIONS
        for client, cell in each.cells.items()
        if isinstance(cell, str) and module_with(cell) is None
    ]


def operations() -> str:
    """Return the table of operations, and its reasons."""
    numbers: dict[Reason, int] = {}

    def shown(cell: Cell) -> str:
        if isinstance(cell, Seen):
            return cell.value
        if isinstance(cell, Reason):
            return str(numbers.setdefault(cell, len(numbers) + 1))
        return f"`{(module_with(cell) or '?').removeprefix('test_')}`"

    names = [name for _, name in _COLUMNS]
    lines = [f"| operation | protocol element | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for each in OPERATIONS:
        cells = " | ".join(shown(each.cells[client]) for client, _ in _COLUMNS)
        lines.append(f"| {each.title} | {each.wire} | {cells} |")
    reasons = [f"{number}. {REASONS[reason]}" for reason, number in numbers.items()]
    return "\n".join([*lines, "", *reasons, ""])


def paths() -> str:
    """Return the paths that hub and provisioning service serve, with their methods."""
    stand_in = MagicMock()
    rooms = {
        "hub service client": (*query_routes(*(stand_in,) * 3), *service_routes(*(stand_in,) * 3)),
        "device or module": device_routes(*(stand_in,) * 2),
        "DPS service client": dps_service_routes(*(stand_in,) * 5),
        "registering device": dps_device_routes(*(stand_in,) * 3),
    }
    lines = ["| client | methods | path |", "|---|---|---|"]
    for title, routes in rooms.items():
        known = set[str]()
        for route in routes:
            path = route.path.rstrip("/")
            if path.lower() not in known or route.path == "/devices":
                methods = ", ".join(sorted((route.methods or set()) - {"HEAD"}))
                lines.append(f"| {title} | {methods} | `{path}` |")
            known.add(path.lower())
    return "\n".join([*lines, ""])


def refused() -> str:
    """Return a row for each refusal of what is not served."""
    for room in (dps, iothub):
        for module in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
            importlib.import_module(module.name)
    waiting, told = [BirthmarkError], dict[str, str]()
    while waiting:
        for kind in waiting.pop().__subclasses__():
            waiting.append(kind)
            if kind.code.startswith(("dps.", "iothub.")) and kind.code.endswith("_not_served"):
                told[kind.code] = kind.cause.replace("|", "\\|")
    return "".join(f"| `{code}` | {told[code]} |\n" for code in sorted(told))


def missing() -> Sequence[str]:
    """Return the methods of which nothing is said, or two things."""
    every = [name for _, client in CLIENTS for name in methods_of(client)]
    found = [name for name in every if (shown_by(name) is None) == (name not in NOT_SERVED)]
    managed = [(name, title) for title, client in MANAGED for name in methods_of(client)]
    return [*found, *(name for name, of in managed if (shown_by(name, of) is None) == (not not_managed(name, of)))]


def not_managed(name: str, title: str) -> str | None:
    """Return why a method of the resource manager's client is not served, None where it is."""
    return None if (title, name) in MANAGED_HERE else NOT_MANAGED.get(name)


def page() -> str:
    """Return the page."""
    parts = [HEAD, operations(), PATHS, paths(), REFUSED, refused(), METHODS]
    for title, client in CLIENTS:
        names = methods_of(client)
        served = [name for name in names if name not in NOT_SERVED]
        parts.append(f"\n### {title}: {len(served)} of {len(names)}\n\n| method | test or reason |\n|---|---|\n")
        parts += [f"| `{name}` | {NOT_SERVED.get(name) or f'`{shown_by(name)}`'} |\n" for name in names]
    for title, client in MANAGED:
        names = methods_of(client)
        served = [name for name in names if not not_managed(name, title)]
        parts.append(f"\n### {title}: {len(served)} of {len(names)}\n\n| method | test or reason |\n|---|---|\n")
        parts += [f"| `{name}` | {not_managed(name, title) or f'`{shown_by(name, title)}`'} |\n" for name in names]
    return "".join(parts)


if __name__ == "__main__":
    TARGET.write_text(page())
    for each in unshown():
        print(f"{each}: no test makes this call")
    for each in missing():
        print(f"{each}: no test calls it, and NOT_SERVED says nothing of it, or both do")
    print("azure-iot.md written")
