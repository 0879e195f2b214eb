"""Write docs/reference/azure-iot.md: of each method of Azure's service SDKs for Python, which test shows its effect.

python tools/make_azure_page.py

What a test uses is read from its source, also from the scripts in it: `.create_module_with_sas(…)` is that method. Of
several tests that one is named whose name is nearest. A method that no test shows has to be in `NOT_SERVED`.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import azure.iot.hub as of_hub
import azure.mgmt.iothub.v2023_06_30.operations as managed_hub
import azure.mgmt.iothubprovisioningservices.operations as managed_dps
import provisioningserviceclient as of_dps

import birthmark

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
_JOBS = "not served yet: scheduled jobs, import and export; refused as `iothub.operation_not_served`"
_CONFIGURATIONS = "not served yet: configurations by a condition; refused as `iothub.operation_not_served`"
_DIGITAL = "not served: digital twins; refused as `iothub.operation_not_served`"
NOT_SERVED: Mapping[str, str] = {
    "create_registration_state_query": "served; the SDK's own call fails before it asks, Node's does not",
    "send_c2d_message": "AMQP alone, which is not served; over HTTPS, or by `birthmark hub c2d`",
    **dict.fromkeys(
        (
            *("cancel_import_export_job", "cancel_scheduled_job", "create_import_export_job", "create_scheduled_job"),
            *("get_import_export_job", "get_import_export_jobs", "get_scheduled_job", "query_scheduled_jobs"),
        ),
        _JOBS,
    ),
    **dict.fromkeys(
        (
            *("create_configuration", "delete_configuration", "get_configuration", "get_configurations"),
            *("test_configuration_queries", "update_configuration"),
        ),
        _CONFIGURATIONS,
    ),
    **dict.fromkeys(
        ("get_digital_twin", "invoke_command", "invoke_component_command", "update_digital_twin"), _DIGITAL
    ),
}
"""Why a method is not served. One that is shown by a test, too, is not allowed here."""
_SERVICES = "services are made, changed and removed by `birthmark hub`, `birthmark dps`"
_READ = "not served yet"
NOT_MANAGED: Mapping[str, str] = {
    **dict.fromkeys(("begin_create_or_update", "begin_delete", "begin_update", "get_operation_result"), _SERVICES),
    **dict.fromkeys(
        (
            *("begin_create_or_update_private_endpoint_connection", "begin_delete_private_endpoint_connection"),
            *("get_private_endpoint_connection", "get_private_link_resources", "list_private_endpoint_connections"),
            "list_private_link_resources",
        ),
        "not served: there are no private links",
    ),
    **dict.fromkeys(
        (
            *("create_event_hub_consumer_group", "delete_event_hub_consumer_group", "get_event_hub_consumer_group"),
            *("list_event_hub_consumer_groups", "get_endpoint_health", "test_all_routes", "test_route"),
        ),
        "not served yet: routes and endpoints of messages",
    ),
    **dict.fromkeys(("export_devices", "import_devices", "get_job", "list_jobs"), "not served yet: import and export"),
    "get_quota_metrics": _READ,
}
"""The same of Azure's resource manager; all of it is refused as `management.operation_not_served`."""
HEAD = """# Azure: what is served, method by method

Of the service SDKs for Python, unmodified, each method with the test that shows its effect (`tests/conformance/azure`).
What is not served is refused by its name, with a row in `birthmark why`. Devices speak MQTT 3.1.1, also in WebSockets,
and HTTPS; AMQP is not served.
"""


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
                found[f"{path.stem}::{node.name}"] = ast.get_source_segment(text, node) or ""
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


def missing() -> Sequence[str]:
    """Return the methods of which nothing is said, or two things."""
    every = [name for _, client in CLIENTS for name in methods_of(client)]
    found = [name for name in every if (shown_by(name) is None) == (name not in NOT_SERVED)]
    managed = [(name, title) for title, client in MANAGED for name in methods_of(client)]
    return [*found, *(name for name, of in managed if (shown_by(name, of) is None) == (name not in NOT_MANAGED))]


def page() -> str:
    """Return the page."""
    parts = [HEAD]
    for title, client in CLIENTS:
        names = methods_of(client)
        served = [name for name in names if name not in NOT_SERVED]
        parts.append(f"\n## {title}: {len(served)} of {len(names)}\n\n| method | shown by |\n|---|---|\n")
        parts += [f"| `{name}` | {NOT_SERVED.get(name) or f'`{shown_by(name)}`'} |\n" for name in names]
    for title, client in MANAGED:
        names = methods_of(client)
        served = [name for name in names if name not in NOT_MANAGED]
        parts.append(f"\n## {title}: {len(served)} of {len(names)}\n\n| method | shown by |\n|---|---|\n")
        parts += [f"| `{name}` | {NOT_MANAGED.get(name) or f'`{shown_by(name, title)}`'} |\n" for name in names]
    return "".join(parts)


if __name__ == "__main__":
    TARGET.write_text(page())
    for each in missing():
        print(f"{each}: no test calls it, and NOT_SERVED says nothing of it, or both do")
    print("azure-iot.md written")
