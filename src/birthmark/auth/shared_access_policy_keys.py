"""Keys of a service's shared access policies: two each, so that one can be rotated while the other is in use."""

from collections.abc import Mapping
from typing import Literal

from birthmark.errors import NotFoundError

Keys = dict[str, tuple[bytes, bytes]]
Which = Literal["primary", "secondary"]
_RIGHTS: Mapping[str, str] = {
    "provisioningserviceowner": "ServiceConfig, DeviceConnect, EnrollmentWrite",
    "iothubowner": "RegistryRead, RegistryWrite, ServiceConnect, DeviceConnect",
    "service": "ServiceConnect",
    "device": "DeviceConnect",
    "registryRead": "RegistryRead",
    "registryReadWrite": "RegistryRead, RegistryWrite",
}
"""Rights of each policy, as named by Azure ("Control access to IoT Hub")."""


class PolicyMissingError(NotFoundError):
    """The service does not have this policy."""

    code = "sas.policy_missing"
    message = "Policy {policy} does not exist"
    cause = "{service} has the policies {known}, but not {policy}."
    fix = (
        "Use one of these policies: {known}. Without a policy name, these commands use the owner's policy: "
        "`birthmark hub key`, `birthmark dps key`"
    )
    known: str
    policy: str
    service: str


def keys_of(policies: Mapping[str, tuple[bytes, bytes]], policy: str, service: str) -> tuple[bytes, bytes]:
    """Return the primary and the secondary key of a policy. Raise `PolicyMissingError`."""
    if (pair := policies.get(policy)) is None:
        raise PolicyMissingError(policy=policy[:64], service=service, known=", ".join(sorted(policies)))
    return pair


def rights_of(policy: str) -> str:
    """Return the rights of a policy, as named by Azure."""
    return _RIGHTS.get(policy, "")


def rotate_key(policies: Keys, policy: str, which: Which, fresh: bytes, service: str) -> Keys:
    """Return the keys with one replaced; tokens signed with the old key are rejected from then on."""
    primary, secondary = keys_of(policies, policy, service)
    return policies | {policy: (fresh, secondary) if which == "primary" else (primary, fresh)}
