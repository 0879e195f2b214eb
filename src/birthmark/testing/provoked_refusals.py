"""Provoked refusals: for each code, a state in which the server refuses a device with it.

Nothing is mocked. Codes that no server state causes are excluded: a program must provoke a code that depends on the
device's request, such as a malformed topic, itself.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from birthmark.testing.device_identity_model import AwsIdentity, AzureIdentity, EstIdentity, Subject
from birthmark.testing.errors import NotProvokedError

if TYPE_CHECKING:
    from birthmark.testing.device_and_fault_factory import DeviceFactory

_HUB = "/hubs/birthmark/devices"
_OVER = timedelta(days=2)


def _at_hub(of: Any) -> str:
    """Return a device's path at the hub."""
    return f"{_HUB}/{quote(of.device_id, safe='')}"


def _not_enrolled(shop: "DeviceFactory", of: Any) -> None:
    shop.remove_enrollment(of.name)


def _enrollment_disabled(shop: "DeviceFactory", of: Any) -> None:
    shop.change_enrollment(of.name, provisioningStatus="disabled")


def _other_certificate(shop: "DeviceFactory", of: Any) -> None:
    shop.put_other_certificate(of)


def _unknown_device(shop: "DeviceFactory", of: Any) -> None:
    shop.operator.delete(_at_hub(of))


def _device_disabled(shop: "DeviceFactory", of: Any) -> None:
    shop.operator.patch(_at_hub(of), {"enabled": False})


def _throttled(shop: "DeviceFactory", _of: Any) -> None:
    shop.set_tier("F1")
    shop.use_up()


def _quota(shop: "DeviceFactory", _of: Any) -> None:
    shop.set_tier("F1")
    shop.use_up(is_day=True, duration=timedelta())


def _revoked(shop: "DeviceFactory", of: Any) -> None:
    shop.operator.post(f"/names/{quote(of.name, safe='')}/revoke", {})


def _taken_back(shop: "DeviceFactory", of: Any) -> None:
    shop.operator.post(f"/devices/{quote(of.name, safe='')}/revoke", {})


def _expired(shop: "DeviceFactory", of: Any) -> None:
    shop.expire(of)


def _behind(shop: "DeviceFactory", _of: Any) -> None:
    shop.set_clock(-_OVER)


def _ahead(shop: "DeviceFactory", _of: Any) -> None:
    shop.set_clock(_OVER)


def _certificate_inactive(shop: "DeviceFactory", of: Any) -> None:
    shop.iot.update_certificate(certificateId=of.certificate_id, newStatus="INACTIVE")


def _certificate_unknown(shop: "DeviceFactory", of: Any) -> None:
    shop.iot.detach_thing_principal(thingName=of.name, principal=of.certificate_arn)
    shop.iot.update_certificate(certificateId=of.certificate_id, newStatus="INACTIVE")
    shop.iot.delete_certificate(certificateId=of.certificate_id, forceDelete=True)


def _policy_denied(shop: "DeviceFactory", of: Any) -> None:
    shop.iot.detach_policy(policyName=of.policy_name, target=of.certificate_arn)


def _user_removed(shop: "DeviceFactory", of: Any) -> None:
    shop.operator.delete(f"/est/users/{quote(of.username, safe='')}")


Provoke = Callable[["DeviceFactory", Any], None]
_TABLE: Mapping[str, Mapping[str, Provoke]] = {
    "azure-device auth=x509 at=dps": {
        "dps.not_enrolled": _not_enrolled,
        "dps.enrollment_disabled": _enrollment_disabled,
        "dps.certificate_mismatch": _other_certificate,
        "dps.device_taken_back": _taken_back,
        "dps.tier_throttled": _throttled,
        "iothub.unknown_device": _unknown_device,
        "iothub.device_disabled": _device_disabled,
        "iothub.tier_throttled": _throttled,
        "iothub.tier_quota": _quota,
        "ca.certificate_revoked": _revoked,
        "pki.certificate_expired": _expired,
        "pki.certificate_not_yet_valid": _behind,
    },
    "azure-device auth=key at=dps": {
        "dps.token_not_enrolled": _not_enrolled,
        "dps.enrollment_disabled": _enrollment_disabled,
        "dps.tier_throttled": _throttled,
        "iothub.unknown_device": _unknown_device,
        "iothub.device_disabled": _device_disabled,
        "iothub.tier_throttled": _throttled,
        "iothub.tier_quota": _quota,
        "sas.expired": _ahead,
    },
    "azure-device auth=x509 at=hub": {
        "iothub.unknown_device": _unknown_device,
        "iothub.device_disabled": _device_disabled,
        "iothub.thumbprint_mismatch": _other_certificate,
        "iothub.tier_throttled": _throttled,
        "iothub.tier_quota": _quota,
        "ca.certificate_revoked": _revoked,
        "pki.certificate_expired": _expired,
        "pki.certificate_not_yet_valid": _behind,
    },
    "azure-device auth=key at=hub": {
        "iothub.unknown_device": _unknown_device,
        "iothub.device_disabled": _device_disabled,
        "iothub.tier_throttled": _throttled,
        "iothub.tier_quota": _quota,
        "sas.expired": _ahead,
    },
    "aws-thing": {
        "awsiot.certificate_inactive": _certificate_inactive,
        "awsiot.certificate_unknown": _certificate_unknown,
        "awsiot.policy_denied": _policy_denied,
        "ca.certificate_revoked": _revoked,
        "pki.certificate_expired": _expired,
        "pki.certificate_not_yet_valid": _behind,
    },
    "est-identity": {
        "est.client_certificate_revoked": _taken_back,
        "est.password_wrong": _user_removed,
        "pki.certificate_expired": _expired,
    },
}

POSSIBLE: Mapping[str, Sequence[str]] = {kind: sorted(codes) for kind, codes in _TABLE.items()}
"""Refusals that can be provoked, by kind of device."""


def kind_of(subject: Subject) -> str:
    """Return the kind of a device in the table."""
    match subject:
        case AzureIdentity(auth=auth, at=at):
            return f"azure-device auth={auth} at={at}"
        case AwsIdentity():
            return "aws-thing"
        case EstIdentity():
            return "est-identity"


def provoke(shop: "DeviceFactory", subject: Subject, code: str) -> Mapping[str, Any]:
    """Set the state in which a device is refused with `code`. Raise `NotProvokedError`."""
    kind = kind_of(subject)
    if (bring_about := _TABLE[kind].get(code)) is None:
        raise NotProvokedError(refusal=code[:64], kind=kind, possible=", ".join(POSSIBLE[kind]))
    bring_about(shop, subject)
    return {"refused": code, "device": msgspec.to_builtins(shop.subject(subject.name))}
