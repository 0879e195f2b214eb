"""Write the section "Clients of other languages" of docs/reference/compatibility.md from the reports of test runs.

scripts/test --languages --junitxml=one.xml
scripts/test --languages --scaled --junitxml=two.xml
python tools/make_clients.py one.xml two.xml

The first run is against one worker, the second against two. Versions are those that the programs are built with.
"""

import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

TOP = Path(__file__).parents[1]
TESTS = TOP / "tests" / "conformance" / "languages"
TARGET = TOP / "docs" / "reference" / "compatibility.md"
NEXT = "## Next steps\n"
HEAD = """## Clients of other languages

Tests run these clients unmodified, against a server with one worker and against one with two workers. Clients for
Python, Node.js and C are on the pages of the [operations of Azure](azure-iot.md) and [of AWS](aws-iot.md).

"""
WITHOUT_CLIENTS = ("test_kits", "test_pages")
_ID = re.compile(r"\b(go|rust|java)-([A-Za-z0-9]+)-?")


@dataclass(frozen=True)
class Client:
    """A client, the package that has its version, and the tests whose names do not tell it."""

    name: str
    language: str
    package: str


CLIENTS: Mapping[str, Client] = {
    "go-mqtt3": Client("Eclipse Paho", "Go", "github.com/eclipse/paho.mqtt.golang"),
    "go-mqtt5": Client("Eclipse Paho, MQTT 5", "Go", "github.com/eclipse/paho.golang"),
    "go-aws": Client("AWS SDK", "Go", "github.com/aws/aws-sdk-go-v2/service/iot"),
    "go-eventhubs": Client("Azure Event Hubs", "Go", "github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"),
    "go-blobs": Client("Azure Blob storage", "Go", "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"),
    "test_est_go": Client("GlobalSign EST client", "Go", "github.com/globalsign/est"),
    "rust-mqtt3": Client("rumqttc", "Rust", "rumqttc"),
    "rust-mqtt5": Client("rumqttc, MQTT 5", "Rust", "rumqttc"),
    "rust-aws": Client("AWS SDK", "Rust", "aws-sdk-iot"),
    "rust-eventhubs": Client("Azure Event Hubs", "Rust", "azure_messaging_eventhubs"),
    "test_est_rust": Client("est-ca", "Rust", "est-ca"),
    "java-PahoMqtt3": Client("Eclipse Paho", "Java", "org.eclipse.paho.client.mqttv3"),
    "java-PahoMqtt5": Client("Eclipse Paho, MQTT 5", "Java", "org.eclipse.paho.mqttv5.client"),
    "java-HiveMqtt3": Client("HiveMQ client", "Java", "hivemq-mqtt-client"),
    "java-HiveMqtt5": Client("HiveMQ client, MQTT 5", "Java", "hivemq-mqtt-client"),
    "java-AwsMqtt3": Client("AWS IoT device SDK", "Java", "aws-iot-device-sdk"),
    "java-AwsMqtt5": Client("AWS IoT device SDK, MQTT 5", "Java", "aws-iot-device-sdk"),
    "java-Aws": Client("AWS SDK", "Java", "iot"),
    "java-EventHubs": Client("Azure Event Hubs", "Java", "azure-messaging-eventhubs"),
    "test_hub_device_sdk": Client("Azure IoT device SDK", "Java", "iot-device-client"),
    "test_hub_service_sdk": Client("Azure IoT service SDK", "Java", "iot-service-client"),
    "test_provisioning_sdk": Client("Azure provisioning device SDK", "Java", "provisioning-device-client"),
    "test_provisioning_service_sdk": Client("Azure provisioning service SDK", "Java", "provisioning-service-client"),
    "test_est_java": Client("Bouncy Castle EST client", "Java", "bcpkix-jdk18on"),
}
_OF_DEVICE_SDK = "test_the_device_sdk_for_java_reconnects_after_a_restart"
Passed = dict[str, dict[str, set[str]]]
"""By client and operation: the variants that passed; one that is empty where there are none."""


def passed_in(report: Path) -> Passed:
    """Return what passed in a run. Raise `SystemExit` if anything failed."""
    found: Passed = defaultdict(lambda: defaultdict(set))
    for case in ET.parse(report).iter("testcase"):
        module, name = case.attrib["classname"].rpartition(".")[2], case.attrib["name"]
        if module in WITHOUT_CLIENTS or case.find("skipped") is not None:
            continue
        if case.find("failure") is not None or case.find("error") is not None:
            sys.exit(f"{report}: {module}::{name} failed. The page lists complete runs only.")
        operation, _, variant = name.removesuffix("]").partition("[")
        client, variant = _split(module, operation, variant)
        found[client][operation].add(variant)
    return found


def _split(module: str, operation: str, variant: str) -> tuple[str, str]:
    """Return the client of a test, and what else its parameters say."""
    if operation == _OF_DEVICE_SDK:
        return "test_hub_device_sdk", variant
    if operation == "test_the_go_sdk_continues_after_a_cut_line":
        return "go-eventhubs", variant
    if (named := _ID.search(variant)) is None:
        return module, variant
    return f"{named[1]}-{named[2]}", (variant[: named.start()] + variant[named.end() :]).strip("-")


def versions() -> Mapping[str, str]:
    """Return the versions of all packages that the programs are built with."""
    go = re.findall(r"^\s*(\S+/\S+) (v\S+)", (TESTS / "go" / "go.mod").read_text(), re.MULTILINE)
    pom = re.findall(r"<artifactId>(.*?)</artifactId>\s*<version>(.*?)</version>", (TESTS / "java/pom.xml").read_text())
    lock = tomllib.loads((TESTS / "rust" / "Cargo.lock").read_text())["package"]
    return {**dict(go), **dict(pom), **{one["name"]: one["version"] for one in lock}}


def title(operation: str) -> str:
    words = operation.removeprefix("test_").replace("_sdks_", "_SDK's_").split("_")
    known = {"ca": "CA", "sdk": "SDK", "aws": "AWS", "java": "Java"}
    text = " ".join(known.get(word, word) for word in words)
    return text[0].upper() + text[1:]


def page(one: Passed, two: Passed) -> str:
    """Return the section."""
    known = versions()
    lines = [
        "| client | language | package and version | operations with one worker | with two |",
        "|---|---|---|---|---|",
    ]
    for client, about in CLIENTS.items():
        version = f"`{about.package}` {known[about.package].removeprefix('v')}"
        counts = f"{len(one[client])} | {len(two[client])}"
        lines.append(f"| {about.name} | {about.language} | {version} | {counts} |")
    return "\n".join([*lines, "", *_operations(one, two), ""])


def _operations(one: Passed, two: Passed) -> Iterator[str]:
    """Yield a table of operations for each group of clients that have the same ones."""
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for client in CLIENTS:
        groups[tuple(sorted({*one[client], *two[client]}))].append(client)
    for operations, clients in groups.items():
        names: dict[str, list[str]] = defaultdict(list)
        for client in clients:
            names[CLIENTS[client].name].append(CLIENTS[client].language)
        heading = "; ".join(f"{name} ({', '.join(dict.fromkeys(languages))})" for name, languages in names.items())
        yield from (f"### {heading}", "", "| operation | one worker | two workers |", "|---|---|---|")
        for operation in operations:
            cells = (_cell([run[client][operation] for client in clients]) for run in (one, two))
            yield f"| {title(operation)} | {' | '.join(cells)} |"
        yield ""


def _cell(variants: Sequence[set[str]]) -> str:
    if not any(variants):
        return "not tested"
    named = sorted(set.union(*variants) - {""})
    return ", ".join(f"`{one}`" for one in named) or "passes"


def main() -> None:
    one, two = (passed_in(Path(path)) for path in sys.argv[1:3])
    text, _, after = TARGET.read_text().partition(NEXT)
    before, _, _ = text.partition(HEAD)
    TARGET.write_text(f"{before}{HEAD}{page(one, two)}{NEXT}{after}")


if __name__ == "__main__":
    main()
