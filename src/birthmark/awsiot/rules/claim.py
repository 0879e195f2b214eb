"""What a claim certificate may do: be given certificates, and become devices, whatever its policies say.

It is denied everything else by a policy of our own, which counts before any that allows. One that was made for a
trusted user has its rights by that as well.
"""

import json
from functools import lru_cache

from birthmark.awsiot.rules.policy import Policy, parse_policy

_ANY = "arn:aws*:iot:*:*:"
_CREATE = "$aws/certificates/create*"


@lru_cache(maxsize=256)
def claim_policies(template: str) -> tuple[Policy, ...]:
    """Return the policies of a claim certificate by `template`; by any where that is empty."""
    topics = [_CREATE, f"$aws/provisioning-templates/{template or '*'}/provision/*"]
    concrete, filters = [f"{_ANY}topic/{one}" for one in topics], [f"{_ANY}topicfilter/{one}" for one in topics]
    actions = ["iot:Connect", "iot:Publish", "iot:Receive", "iot:Subscribe"]
    denies: list[dict[str, object]] = [
        {"Effect": "Deny", "Action": ["iot:Publish", "iot:Receive"], "NotResource": concrete},
        {"Effect": "Deny", "Action": "iot:Subscribe", "NotResource": filters},
        {"Effect": "Deny", "NotAction": actions, "Resource": "*"},
    ]
    allows: list[dict[str, object]] = [
        {"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"},
        {"Effect": "Allow", "Action": ["iot:Publish", "iot:Receive"], "Resource": concrete},
        {"Effect": "Allow", "Action": "iot:Subscribe", "Resource": filters},
    ]
    own = [_policy("what a claim certificate may not do", denies)]
    if template:
        own.append(_policy("what a claim of a trusted user may do", allows))
    return tuple(own)


def _policy(name: str, statements: list[dict[str, object]]) -> Policy:
    return parse_policy(name, json.dumps({"Version": "2012-10-17", "Statement": statements}))
