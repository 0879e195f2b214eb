"""Devices of your own CA to AWS IoT Core by just-in-time provisioning, without individual enrollment."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from birthmark.demo.harness import IN_CHIP, DemoProof, Job, Stage, app_path, together
from birthmark.pki.certificates import parse_bundle

TITLE = "Twenty chips of one CA → AWS IoT Core with just-in-time provisioning"
ABOUT = "Only the CA is registered. Each device becomes a thing at its first connection; one is rejected."
_CHIPS = 20
_MESSAGES = 10
_ROLE = "arn:aws:iam::000000000000:role/provisioning"
_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": "iot:Connect",
            "Resource": "arn:aws:iot:*:*:client/${iot:Connection.Thing.ThingName}",
        },
        {
            "Effect": "Allow",
            "Action": ["iot:Publish", "iot:Receive"],
            "Resource": "arn:aws:iot:*:*:topic/devices/${iot:Connection.Thing.ThingName}/*",
        },
        {
            "Effect": "Allow",
            "Action": "iot:Subscribe",
            "Resource": "arn:aws:iot:*:*:topicfilter/devices/${iot:Connection.Thing.ThingName}/*",
        },
    ],
}
_NAME, _ID = "AWS::IoT::Certificate::CommonName", "AWS::IoT::Certificate::Id"
_TEMPLATE = {
    "Parameters": {_NAME: {"Type": "String"}, _ID: {"Type": "String"}},
    "Resources": {
        "thing": {
            "Type": "AWS::IoT::Thing",
            "Properties": {"ThingName": {"Ref": _NAME}, "AttributePayload": {"line": "gateways"}},
        },
        "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": _ID}}},
        "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": _POLICY}},
    },
}


@dataclass
class _Chip:
    """A simulated secure element, its certificate and its device name."""

    directory: str
    name: str
    variables: Mapping[str, str]
    thumbprint: str = ""


def play(stage: Stage) -> None:
    """Run the scenario."""
    stage.say("Create your own CA, and start the local cloud.")
    stage.birthmark("ca", "init", "--name", "Example Gateways", "--dir", "ca")
    stage.serve()

    stage.say(
        "A provisioning template defines what each device gets: a thing with its name, and a policy for that thing's "
        "topics."
    )
    stage.path("template.json").write_text(json.dumps(_TEMPLATE, indent=2))
    template = ("--template-name", "gateways", "--template-body", "file://template.json", "--type", "JITP")
    _aws(stage, "create-provisioning-template", *template, "--enabled", "--provisioning-role-arn", _ROLE)

    stage.say("Register the CA with that template and a proof of possession of its key.")
    code = _aws(stage, "get-registration-code")["registrationCode"]
    proof = ("--with", "issuing", "--dir", "ca", "--out", "proof.pem")
    stage.birthmark("ca", "verify-possession", code, *proof)
    ca = ("--ca-certificate", "file://ca/issuing.pem", "--verification-certificate", "file://proof.pem")
    may = ("--set-as-active", "--allow-auto-registration", "--registration-config", "templateName=gateways")
    _aws(stage, "register-ca-certificate", *ca, *may)

    stage.say(f"{_CHIPS} ATECC608 chips leave the line, each with its own key and a certificate of that CA.")
    chips = _chips(stage)
    stage.expect(stage.rows("aws", "thing", "ls"), [], "registered things")

    stage.say("Switch them on. The server closes each first connection, as AWS does; the next one succeeds.")
    good, late = chips[:-1], chips[-1]
    _connect(stage, good, expected=1)
    words = sorted(set(_connect(stage, good, expected=0)))
    stage.expect(words, [f"{_MESSAGES} messages published and received"], "last line of each program")
    told = f"{_MESSAGES} sent, {_MESSAGES} received"
    for chip in good:
        stage.prove(DemoProof(chip.name, IN_CHIP, chip.thumbprint, f"thing {chip.name}", told))
    things = stage.rows("aws", "thing", "ls")
    stage.expect(len(things), _CHIPS - 1, "registered things")

    stage.say(
        f"The last device has the name {late.name}, which another thing already has. The server rejects it and "
        "records the reason."
    )
    _connect(stage, [late], expected=1)
    (refusal,) = stage.rows("why", late.thumbprint, "--limit", "1")
    stage.expect(refusal["code"], "awsiot.thing_taken", "reason")
    stage.note(refusal["cause"])
    stage.note(refusal["fix"])
    (row,) = [one for one in stage.rows("aws", "thing", "ls") if one["thing"] == late.name]
    stage.expect(row["certificates"], [chips[0].thumbprint], f"certificates of {late.name}")


def _chips(stage: Stage) -> list[_Chip]:
    """Create the secure elements and sign their CSRs; the last one gets the name of the first."""
    numbers = range(1, _CHIPS + 1)
    simulate = ("birthmark", "chip", "simulate", "--chip", "atecc608", "--json")
    made = together(stage, [((*simulate, f"chip-{n:02}"), {}) for n in numbers])
    chips = [
        _Chip(
            f"chip-{n:02}",
            f"gateway-{n:02}" if n < _CHIPS else "gateway-01",
            {key: value for key, value in json.loads(done.stdout).items() if key.isupper()},
        )
        for n, done in zip(numbers, made, strict=True)
    ]
    csr = ("birthmark", "chip", "csr", "--cn")
    together(stage, [((*csr, chip.name, "--out", f"{chip.directory}.csr"), chip.variables) for chip in chips])
    sign = ("birthmark", "ca", "sign", "--dir", "ca")
    jobs: list[Job] = [((*sign, f"{one.directory}.csr", "--out", f"{one.directory}.pem"), {}) for one in chips]
    together(stage, jobs, at_once=1)  # one CA: sequential
    for chip in chips:
        chip.thumbprint = parse_bundle(stage.path(f"{chip.directory}.pem").read_bytes())[0].thumbprint.hex()
    return chips


def _connect(stage: Stage, chips: Sequence[_Chip], *, expected: int) -> list[str]:
    """Run the device programs and return the last output lines; each must exit with the expected code."""
    program = ("python", str(app_path("aws_device.py")))
    done = together(stage, [(program, _identity(stage, chip)) for chip in chips], may_fail=True)
    codes = sorted({one.returncode for one in done})
    stage.expect(codes, [expected], "exit code of the program")
    return [(one.stdout.splitlines() or [""])[-1] for one in done]


def _identity(stage: Stage, chip: _Chip) -> dict[str, str]:
    return {
        **chip.variables,
        "AWS_IOT_ENDPOINT": stage.endpoints["aws"]["data_endpoint"],
        "THING_NAME": chip.name,
        "CERT_FILE": f"{chip.directory}.pem",
        "PKCS11_LIB": chip.variables["BIRTHMARK_PKCS11_MODULE"],
        "TOKEN_LABEL": chip.variables["BIRTHMARK_TOKEN"],
        "PIN_FILE": chip.variables["BIRTHMARK_PIN_FILE"],
        "KEY_LABEL": "device",
        "CA_FILE": stage.endpoints["trust_bundle"],
    }


def _aws(stage: Stage, *arguments: str) -> dict[str, str]:
    done = stage.run("aws", "iot", *arguments)
    answer: dict[str, str] = json.loads(done.stdout) if done.stdout.strip() else {}
    return answer
