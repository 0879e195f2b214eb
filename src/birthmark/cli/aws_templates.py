"""`birthmark aws template` and `claim`: what devices become that nobody put on record one by one."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from birthmark.awsiot.rules.provisioning_plans import TemplateInvalidError
from birthmark.awsiot.rules.provisioning_templates import MAX_TEMPLATE_CHARS
from birthmark.cli.common import emit, read_device_certificate, read_text, say
from birthmark.cli.json_input import object_of
from birthmark.cli.server_client import ListOptions, RemoveOptions, ServerOutputOptions, at

_COLUMNS = ("template", "type", "enabled", "version", "hook", "description")
_ROLE = "arn:aws:iam::000000000000:role/provisioning"
_CERTIFICATE = {
    "Type": "AWS::IoT::Certificate",
    "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"},
}
_OWN = "${iot:Connection.Thing.ThingName}"


class TemplateKind(StrEnum):
    """Which way the devices come."""

    CLAIM = "claim"
    JITP = "jitp"


IsJitp = Annotated[
    TemplateKind, typer.Option("--type", help="For devices with a claim certificate, or of a CA on record.")
]


def list_templates(server: ListOptions) -> None:
    """List the provisioning templates."""
    server.show("aws", "templates", columns=_COLUMNS, nothing="There is no provisioning template.")


def show_template(
    server: ServerOutputOptions, name: Annotated[str, typer.Argument(help="The template's name; letter case counts.")]
) -> None:
    """Show a provisioning template whole, as JSON."""
    found = server.client.get(at("aws", "templates", name))
    typer.echo(json.dumps(found, indent=None if server.as_json else 2))


def create_template(
    server: ServerOutputOptions,
    name: Annotated[str, typer.Argument(help="Up to 36 letters, digits, _ and -.")],
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The template, as JSON.")],
    kind: IsJitp = TemplateKind.CLAIM,
    hook: Annotated[
        str | None, typer.Option(metavar="ARN", help="A function that is asked before a device is registered.")
    ] = None,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
) -> None:
    """Make a provisioning template, switched on."""
    body = read_text(file)
    if len(body) > MAX_TEMPLATE_CHARS:
        raise TemplateInvalidError(detail=f"it has more than {MAX_TEMPLATE_CHARS} characters")
    object_of(body, f"what is in {file}")
    server.do(
        *("aws", "templates"),
        name=name,
        body=body,
        type="JITP" if kind is TemplateKind.JITP else "FLEET_PROVISIONING",
        hook=hook,
        description=description,
    )


def remove_template(
    server: RemoveOptions, name: Annotated[str, typer.Argument(help="As `birthmark aws template ls` shows it.")]
) -> None:
    """Remove a provisioning template; devices that it made stay."""
    server.remove("aws", "templates", name, what=f"the provisioning template {name}, by which no device comes then")


def example(kind: IsJitp = TemplateKind.CLAIM) -> None:
    """Print a template to begin with, and say on standard error what a device does."""
    name = "AWS::IoT::Certificate::CommonName" if kind is TemplateKind.JITP else "SerialNumber"
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": "iot:Connect", "Resource": f"arn:aws:iot:*:*:client/{_OWN}"},
            {
                "Effect": "Allow",
                "Action": ["iot:Publish", "iot:Receive"],
                "Resource": f"arn:aws:iot:*:*:topic/devices/{_OWN}/*",
            },
            {
                "Effect": "Allow",
                "Action": "iot:Subscribe",
                "Resource": f"arn:aws:iot:*:*:topicfilter/devices/{_OWN}/*",
            },
        ],
    }
    body = {
        "Parameters": {name: {"Type": "String"}, "AWS::IoT::Certificate::Id": {"Type": "String"}},
        "Resources": {
            "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": name}}},
            "certificate": _CERTIFICATE,
            "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": policy}},
        },
    }
    typer.echo(json.dumps(body, indent=2))
    typer.echo(_HOW[kind], err=True)


_HOW = {
    TemplateKind.CLAIM: (
        "A device connects by its claim certificate, subscribes to\n"
        "$aws/certificates/create-from-csr/json/accepted and /rejected, publishes\n"
        '{"certificateSigningRequest": "…"} to $aws/certificates/create-from-csr/json,\n'
        "does the same at $aws/provisioning-templates/NAME/provision/json with\n"
        '{"certificateOwnershipToken": "…", "parameters": {"SerialNumber": "…"}},\n'
        "and connects again by its own certificate. Make the template of a file:\n"
        "birthmark aws template create NAME FILE"
    ),
    TemplateKind.JITP: (
        "A device connects by a certificate of a CA on record that names the template,\n"
        "is closed, and connects again. Make the template of a file:\n"
        "birthmark aws template create NAME FILE --type jitp"
    ),
}


def claim(
    server: ServerOutputOptions,
    certificate_id: Annotated[str, typer.Argument(help="As `birthmark aws certificate ls` shows it.")],
    undo: Annotated[bool, typer.Option("--undo", help="It is a device's again.")] = False,
) -> None:
    """Say that a certificate is a claim: it provisions devices, and reaches nothing else, whatever its policies say.

    One that asked for a certificate and is no thing's became a claim by that; what else a policy allows it is denied.
    """
    server.client.put(at("aws", "certificates", certificate_id, "claim"), {"claim": not undo})
    told = "is a device's again" if undo else "is a claim, and reaches what provisions devices alone"
    say(server.as_json, {"certificate": certificate_id, "claim": not undo}, f"{certificate_id} {told}.")


def renew(
    server: ServerOutputOptions,
    certificate_id: Annotated[str, typer.Argument(help="The old one, as `birthmark aws certificate ls` shows it.")],
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The new certificate, in PEM.")],
) -> None:
    """Register a renewed certificate with what the old one has; that one goes when this one has connected.

    What this server's own CA renewed, by EST, follows by itself at its first connection.
    """
    from birthmark.pki.certificates import CertificateInvalidError

    if (following := read_device_certificate(file)).is_ca:
        raise CertificateInvalidError(detail=f"{file.name} has a CA's certificate, and none of a device")
    body = {"certificate": following.pem()}
    emit(server.as_json, server.client.post(at("aws", "certificates", certificate_id, "renew"), body))
