"""AWS managed job templates, as listed in the developer guide; they run the handlers of the Device Client.

Each template has one version, 1.0, and is for Linux. The descriptions are our own.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from birthmark.awsiot.model import Account
from birthmark.awsiot.wire.jobs import template_arn

VERSION = "1.0"
_ARN = re.compile(r"arn:aws:iot:[a-z0-9-]*::jobtemplate/([A-Za-z-]{1,64}):([0-9.]{1,16})")
OPTIONAL = ("runAsUser", "pathToHandler")
"""Optional parameters of every managed template."""
_DESCRIBED: Mapping[str, tuple[str, str, str]] = {
    "downloadUrl": ("The URL of the file", "(.*?)", "https://example.com/firmware.bin"),
    "filePath": ("Path of the file on the device", "(.*?)", "/var/lib/firmware.bin"),
    "packages": ("Names of packages, with spaces between them", "(.*?)", "curl jq"),
    "services": ("Names of services, with spaces between them", "(.*?)", "nginx cron"),
    "runAsUser": ("The user that runs the handler; by default the client's own", "(.){0,256}", "user1"),
    "pathToHandler": ("The folder of the handler; by default the client's", "(.){0,4096}", "/opt/handlers"),
}
"""Description, value pattern and example of each parameter."""


@dataclass(frozen=True, slots=True)
class ManagedTemplate:
    """An AWS managed template: name, description, device handler and required parameters."""

    name: str
    description: str
    handler: str
    needed: tuple[str, ...]

    @property
    def template_id(self) -> str:
        """Name and version, as in the ARN."""
        return f"{self.name}:{VERSION}"

    @property
    def document(self) -> str:
        given: dict[str, Any] = {"handler": self.handler}
        if self.needed:
            given["args"] = [_placeholder(name) for name in self.needed]
        given["path"] = _placeholder("pathToHandler")
        name = self.name.removeprefix("AWS-")
        action = {"name": name, "type": "runHandler", "input": given, "runAsUser": _placeholder("runAsUser")}
        return json.dumps({"version": VERSION, "steps": [{"action": action}]}, separators=(",", ":"))

    @property
    def parameters(self) -> Sequence[Mapping[str, Any]]:
        """Parameters, in the format of DescribeManagedJobTemplate."""
        return [
            {
                **dict(zip(("description", "regex", "example"), _DESCRIBED[name], strict=True)),
                "key": name,
                "optional": name in OPTIONAL,
            }
            for name in (*self.needed, *OPTIONAL)
        ]


def _placeholder(name: str) -> str:
    return "${aws:iot:parameter:" + name + "}"


_PACKAGES, _SERVICES = ("packages",), ("services",)
MANAGED: Mapping[str, ManagedTemplate] = {
    one.name: one
    for one in (
        ManagedTemplate("AWS-Download-File", "Downloads a file", "download-file.sh", ("downloadUrl", "filePath")),
        ManagedTemplate("AWS-Install-Application", "Installs packages", "install-packages.sh", _PACKAGES),
        ManagedTemplate("AWS-Reboot", "Reboots the device", "reboot.sh", ()),
        ManagedTemplate("AWS-Remove-Application", "Removes packages", "remove-packages.sh", _PACKAGES),
        ManagedTemplate("AWS-Restart-Application", "Restarts services", "restart-services.sh", _SERVICES),
        ManagedTemplate("AWS-Start-Application", "Starts services", "start-services.sh", _SERVICES),
        ManagedTemplate("AWS-Stop-Application", "Stops services", "stop-services.sh", _SERVICES),
    )
}
"""AWS managed job templates by name, in order."""


def managed_by_arn(arn: str) -> ManagedTemplate | None:
    """Return the AWS managed template with this ARN, or None."""
    found = _ARN.fullmatch(arn)
    return None if found is None or found[2] != VERSION else MANAGED.get(found[1])


def managed_entry_json(account: Account, template: ManagedTemplate) -> dict[str, Any]:
    """Return an entry of ListManagedJobTemplates."""
    return {
        "templateArn": template_arn(account, template.template_id),
        "templateName": template.name,
        "description": template.description,
        "environments": ["LINUX"],
        "templateVersion": VERSION,
    }


def managed_json(account: Account, template: ManagedTemplate) -> dict[str, Any]:
    """Return the DescribeManagedJobTemplate response."""
    more = {"documentParameters": [dict(one) for one in template.parameters], "document": template.document}
    return managed_entry_json(account, template) | more
