"""EdgeLock SE050 to AWS IoT Core: the aws CLI, then awsiotsdk with a PKCS#11 key."""

import json
from collections.abc import Mapping

from birthmark.demo.harness import IN_CHIP, DemoProof, Stage, app_path
from birthmark.pki.certificates import Certificate, parse_pem

TITLE = "EdgeLock SE050 → AWS IoT Core over PKCS#11"
ABOUT = "Amazon's own CLI and SDK, unmodified; the RSA key stays in the chip; policies are enforced."
_MESSAGES = 10
_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"},
        {"Effect": "Allow", "Action": ["iot:Publish", "iot:Receive"], "Resource": "arn:aws:iot:*:*:topic/devices/*"},
        {"Effect": "Allow", "Action": "iot:Subscribe", "Resource": "arn:aws:iot:*:*:topicfilter/*"},
    ],
}


def play(stage: Stage) -> None:
    """Run the scenario."""
    stage.say(
        "Two gateways with an SE050: one with current middleware, one with a version before 4.4, which swaps the bytes."
    )
    stage.serve()
    aws = stage.endpoints["aws"]
    stage.path("policy.json").write_text(json.dumps(_POLICY))

    stage.say("Enroll the first gateway with the aws CLI. Environment variables set the endpoint and credentials.")
    chip = _chip(stage, "chip-1", swapped=False)
    certificate = _certificate(stage, chip, "gateway-1")
    _enroll(stage, "gateway-1", (), with_policy=True)
    _connect(stage, chip, "gateway-1", "sss:F0000110", certificate)

    stage.say("Enroll the second gateway with a profile of `aws configure`.")
    answers = (aws["access_key_id"], aws["secret_access_key"], aws["region"], "json")
    stage.run("aws", "configure", "--profile", "birthmark", stdin="".join(f"{line}\n" for line in answers))
    for name, value in (("endpoint_url", aws["endpoint_url"]), ("ca_bundle", stage.endpoints["trust_bundle"])):
        stage.run("aws", "configure", "set", name, value, "--profile", "birthmark")
    chip = _chip(stage, "chip-2", swapped=True)
    certificate = _certificate(stage, chip, "gateway-2")
    _enroll(stage, "gateway-2", ("--profile", "birthmark"), with_policy=False)
    _connect(stage, chip, "gateway-2", "sss:100100F0", certificate)

    stage.say("Publish to a topic outside the policy: the server closes the connection and records the reason.")
    identity = _identity(stage, chip, "gateway-2", "sss:100100F0")
    _expect_refusal(stage, identity | {"TOPIC": "elsewhere/data"}, "gateway-2", "awsiot.policy_denied")

    stage.say("The server rejects an inactive certificate.")
    certificate_id = certificate.thumbprint.hex()
    _aws(stage, (), "update-certificate", "--certificate-id", certificate_id, "--new-status", "INACTIVE")
    _expect_refusal(stage, identity, certificate_id, "awsiot.certificate_inactive")


def _expect_refusal(stage: Stage, identity: dict[str, str], about: str, code: str) -> None:
    program = ("python", str(app_path("aws_device.py")))
    stage.expect_refused(lambda: stage.run(*program, environment=identity, may_fail=True), about, code)


def _chip(stage: Stage, name: str, *, swapped: bool) -> Mapping[str, str]:
    more = ("--swapped-labels",) if swapped else ()
    made = stage.birthmark("chip", "simulate", name, "--chip", "se050", *more, "--json").stdout
    chip: dict[str, str] = {key: value for key, value in json.loads(made).items() if key.isupper()}
    return chip


def _certificate(stage: Stage, chip: Mapping[str, str], name: str) -> Certificate:
    stage.birthmark("chip", "cert", "0xF0000110", "--out", f"{name}.pem", environment=chip)
    return parse_pem(stage.path(f"{name}.pem").read_bytes())


def _enroll(stage: Stage, name: str, profile: tuple[str, ...], *, with_policy: bool) -> None:
    """Run the commands of the how-to."""
    _aws(stage, profile, "create-thing", "--thing-name", name)
    if with_policy:
        document = ("--policy-document", "file://policy.json")
        _aws(stage, profile, "create-policy", "--policy-name", "gateways", *document)
    pem = ("--certificate-pem", f"file://{name}.pem", "--status", "ACTIVE")
    arn = str(_aws(stage, profile, "register-certificate-without-ca", *pem)["certificateArn"])
    _aws(stage, profile, "attach-policy", "--policy-name", "gateways", "--target", arn)
    _aws(stage, profile, "attach-thing-principal", "--thing-name", name, "--principal", arn)
    answer = _aws(stage, profile, "describe-endpoint", "--endpoint-type", "iot:Data-ATS")
    stage.expect(answer["endpointAddress"], stage.endpoints["aws"]["data_endpoint"], "endpoint")


def _connect(stage: Stage, chip: Mapping[str, str], name: str, label: str, certificate: Certificate) -> None:
    """Run the device program and record the result."""
    done = stage.run("python", str(app_path("aws_device.py")), environment=_identity(stage, chip, name, label))
    stage.expect(
        done.stdout.splitlines()[-1], f"{_MESSAGES} messages published and received", "last line of the program"
    )
    place = f"thing {name}, key label {label}"
    told = f"{_MESSAGES} sent, {_MESSAGES} received"
    stage.prove(DemoProof(name, IN_CHIP, certificate.thumbprint.hex(), place, told))


def _identity(stage: Stage, chip: Mapping[str, str], name: str, label: str) -> dict[str, str]:
    return {
        **chip,
        "AWS_IOT_ENDPOINT": stage.endpoints["aws"]["data_endpoint"],
        "THING_NAME": name,
        "CERT_FILE": f"{name}.pem",
        "PKCS11_LIB": chip["BIRTHMARK_PKCS11_MODULE"],
        "TOKEN_LABEL": chip["BIRTHMARK_TOKEN"],
        "PIN_FILE": chip["BIRTHMARK_PIN_FILE"],
        "KEY_LABEL": label,
        "CA_FILE": stage.endpoints["trust_bundle"],
    }


def _aws(stage: Stage, profile: tuple[str, ...], *arguments: str) -> dict[str, str]:
    # A profile's command runs without the variables of the first option, so that it works on its own.
    without = tuple(n for n in stage.environment if n.startswith("AWS_")) if profile else ()
    done = stage.run("aws", *profile, "iot", *arguments, without=without)
    answer: dict[str, str] = json.loads(done.stdout) if done.stdout.strip() else {}
    return answer
