"""`birthmark aws template` and `claim`: templates for devices that are not registered individually."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from birthmark.awsiot.rules.provisioning_plan_model import TemplateInvalidError
from birthmark.awsiot.rules.provisioning_templates import MAX_TEMPLATE_CHARS
from birthmark.cli.input_files import read_device_certificate, read_text
from birthmark.cli.options.json_arguments import object_of
from birthmark.cli.options.server import ListOptions, RemoveOptions, ServerOutputOptions, at
from birthmark.cli.output.command_output import emit, say

_COLUMNS = ("template", "type", "enabled", "version", "hook", "description")
_ROLE = "arn:aws:iam::000000000000:role/provisioning"
_CERTIFICATE = {
    "Type": "AWS::IoT::Certificate",
    "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"},
}
_OWN = "${iot:Connection.Thing.ThingName}"


class TemplateKind(StrEnum):
    """Provisioning type of a template."""

    CLAIM = "claim"
    JITP = "jitp"


IsJitp = Annotated[
    TemplateKind,
    typer.Option(
        "--type", help="Template type: for devices with a claim certificate, or for JITP with a registered CA."
    ),
]


def list_templates(server: ListOptions) -> None:
    """List the provisioning templates."""
    server.show("aws", "templates", columns=_COLUMNS, nothing="No provisioning templates.")


def show_template(
    server: ServerOutputOptions, name: Annotated[str, typer.Argument(help="Provisioning template; case-sensitive.")]
) -> None:
    """Show a provisioning template as JSON."""
    found = server.client.get(at("aws", "templates", name))
    typer.echo(json.dumps(found, indent=None if server.as_json else 2))


def create_template(
    server: ServerOutputOptions,
    name: Annotated[str, typer.Argument(help="Template name: up to 36 letters, digits, _ and -.")],
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="File with the template: JSON.")],
    kind: IsJitp = TemplateKind.CLAIM,
    hook: Annotated[
        str | None, typer.Option(metavar="ARN", help="Pre-provisioning hook, called before a device is registered.")
    ] = None,
    description: Annotated[str, typer.Option(help="Description of the template.")] = "",
) -> None:
    """Create a provisioning template and enable it."""
    body = read_text(file)
    if len(body) > MAX_TEMPLATE_CHARS:
        raise TemplateInvalidError(detail=f"it has more than {MAX_TEMPLATE_CHARS} characters")
    object_of(body, f"the content of {file}")
    server.do(
        *("aws", "templates"),
        name=name,
        body=body,
        type="JITP" if kind is TemplateKind.JITP else "FLEET_PROVISIONING",
        hook=hook,
        description=description,
    )


def remove_template(
    server: RemoveOptions,
    name: Annotated[str, typer.Argument(help="Provisioning template, as listed by `birthmark aws template ls`.")],
) -> None:
    """Delete a provisioning template.

    Devices provisioned with it are kept.
    """
    server.remove(
        "aws", "templates", name, subject=f"the provisioning template {name} (devices can no longer register with it)"
    )


def example(kind: IsJitp = TemplateKind.CLAIM) -> None:
    """Print an example provisioning template.

    Prints the device's steps on standard error.
    """
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
        "A device connects with a certificate of a registered CA that names the template,\nis disconnected, and "
        "connects again. Create the template from a file:\nbirthmark aws template create NAME FILE --type jitp"
    ),
}


def claim(
    server: ServerOutputOptions,
    certificate_id: Annotated[str, typer.Argument(help="Certificate ID, as listed by `birthmark aws certificate ls`.")],
    undo: Annotated[bool, typer.Option("--undo", help="Mark it as a device certificate again.")] = False,
) -> None:
    """Mark a certificate as a provisioning claim.

    A claim can provision devices and nothing more, whatever its policies allow.

    A certificate without a thing becomes a claim when it requests a certificate. Its other permissions are then
    denied.
    """
    server.client.put(at("aws", "certificates", certificate_id, "claim"), {"claim": not undo})
    told = "is a device's again" if undo else "is a claim and can only provision devices"
    say(server.as_json, {"certificate": certificate_id, "claim": not undo}, f"{certificate_id} {told}.")


def renew(
    server: ServerOutputOptions,
    certificate_id: Annotated[
        str, typer.Argument(help="Old certificate ID, as listed by `birthmark aws certificate ls`.")
    ],
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="File with the new certificate: PEM.")],
) -> None:
    """Register a renewed certificate to replace an old one.

    It inherits things and policies. The old certificate is removed when the new one has connected.

    A certificate renewed over EST by this server's own CA is replaced automatically at its first connection.
    """
    from birthmark.pki.certificates import CertificateInvalidError

    if (following := read_device_certificate(file)).is_ca:
        raise CertificateInvalidError(detail=f"{file.name} contains a CA certificate, but no device certificate")
    body = {"certificate": following.pem()}
    emit(server.as_json, server.client.post(at("aws", "certificates", certificate_id, "renew"), body))
