"""A local Birthmark server: its address, and the records that it needs for the devices of a swarm.

The swarm's CA is registered as verified, because its key is in this directory, with a separate enrollment group. An EST
user for first certificates exists only as long as they take. All of it uses the server's operator interface and DPS.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from birthmark.clock_and_entropy import Entropy
from birthmark.errors import NotFoundError
from birthmark.fleet.aws_target import AwsTarget
from birthmark.fleet.azure_target import AzureTarget
from birthmark.fleet.enrollment_target import EnrollmentRequest
from birthmark.fleet.target_profiles import aws_profile, azure_profile
from birthmark.operator_api.client.server_discovery_and_api_client import OperatorClient, get_service, read_endpoints
from birthmark.pki.certificates import Certificate
from birthmark.swarm.device_preparation import EstAccount
from birthmark.swarm.identities import IdentityDirectory
from birthmark.swarm.model import TargetKind

POLICY = "swarm"
_NAME = "${iot:Connection.Thing.ThingName}"
_PLACES = (f"devices/{_NAME}/*", f"$aws/things/{_NAME}/jobs/*")
_DOCUMENT = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": "iot:Connect", "Resource": f"arn:aws:iot:*:*:client/{_NAME}"},
        {
            "Effect": "Allow",
            "Action": ["iot:Publish", "iot:Receive"],
            "Resource": [f"arn:aws:iot:*:*:topic/{place}" for place in _PLACES],
        },
        {
            "Effect": "Allow",
            "Action": "iot:Subscribe",
            "Resource": [f"arn:aws:iot:*:*:topicfilter/{place}" for place in _PLACES],
        },
    ],
}
_SERVICE = "birthmark"
_DIGITS = 12


def local_facts(data: Path, kind: TargetKind) -> dict[str, Any]:
    """Return the values of a local target for a scenario's table. Raise `ServerNotRunningError`, `NotServedError`."""
    endpoints = read_endpoints(data)
    facts: dict[str, Any] = {"trust": Path(endpoints["trust_bundle"]).read_text(encoding="ascii")}
    if (est := endpoints["est"]) is not None:
        facts["est_url"] = est["url"]
    if kind.is_aws:
        return {**facts, "host": get_service(endpoints, "aws", data)["data_endpoint"]}
    dps = get_service(endpoints, "dps", data)
    if (hub := endpoints["iothub"]) is not None:
        facts["amqp_port"] = hub["amqps_port"]
    return {**facts, "host": dps["host"], "id_scope": dps["id_scope"], "https_port": dps["https_port"]}


def put_on_record(data: Path, certificate: Certificate) -> str:
    """Create an enrollment group for every device below a CA; return its name. Idempotent."""
    name = f"swarm-{certificate.thumbprint.hex()[:_DIGITS]}"
    client = OperatorClient.of(data)
    cas = f"/dps/{_SERVICE}/cas"
    if not any(row["thumbprint"] == certificate.thumbprint.hex() for row in client.rows(cas)):
        client.post(cas, {"name": name, "certificate": certificate.pem(), "group": None, "verified": True})
    target = AzureTarget(azure_profile("local", data))
    target.enroll_group(name, certificates=[certificate], is_edge=False, update=True, dry_run=False)
    return name


def revoke(data: Path, certificate: Certificate) -> None:
    """Revoke a certificate of the server's own CA."""
    OperatorClient.of(data).post(f"/certificates/{certificate.thumbprint.hex()}/revoke", {"reason": "unspecified"})


@contextlib.contextmanager
def create_temporary_account(data: Path, entropy: Entropy) -> Iterator[EstAccount]:
    """Provide a temporary EST user that may request any name."""
    client = OperatorClient.of(data)
    account = EstAccount(f"swarm-{entropy.token(6).hex()}", entropy.token(24).hex())
    client.post("/est/users", {"name": account.user, "password": account.password, "device_id": None})
    try:
        yield account
    finally:
        with contextlib.suppress(NotFoundError):
            client.delete(f"/est/users/{account.user}")


def put_things_on_record(data: Path, names: Sequence[str], shelf: IdentityDirectory) -> str:
    """Register devices on the server's AWS side: a thing and a certificate each, and one policy for all."""
    import boto3  # a `fleet` extra, which only this target needs

    profile = aws_profile("local", data)
    target = AwsTarget(profile)
    iot: Any = boto3.client(
        "iot",
        endpoint_url=profile.endpoint_url,
        region_name=profile.region,
        aws_access_key_id=profile.access_key_id,
        aws_secret_access_key=profile.secret_access_key,
        verify=str(profile.ca_file),
    )
    document = json.dumps(_DOCUMENT)
    try:
        iot.create_policy(policyName=POLICY, policyDocument=document)
    except iot.exceptions.ResourceAlreadyExistsException:
        if json.loads(iot.get_policy(policyName=POLICY)["policyDocument"]) != _DOCUMENT:  # an earlier release's
            iot.create_policy_version(policyName=POLICY, policyDocument=document, setAsDefault=True)
    target.survey(len(names))
    for name in names:
        wish = EnrollmentRequest(name, shelf.leaf_of(name), policy=POLICY)
        target.enroll(wish, update=True, dry_run=False)
    return POLICY
