"""Certificate renewal at AWS IoT Core, where a renewed certificate is a new principal.

Policies and things are attached to the new certificate. After the device has connected with it, the old one is retired.
AWS does not report later which certificate a device connected with. The old certificate is therefore deactivated once
the device has connected, and reactivated if that disconnects the device.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from birthmark.errors import ConflictError, UnavailableError
from birthmark.fleet.aws_diff_and_rollback import ACTIVE
from birthmark.fleet.aws_revocation import AwsRevoker
from birthmark.fleet.enrollment_target import ShippedCertificate
from birthmark.fleet.errors import NoSuchRecordError
from birthmark.pki.certificates import parse_any

_LOOK_S = 1.0
_BACK_WITHIN = timedelta(seconds=45)
"""Time for a disconnected device to reconnect: a keep-alive of 30 seconds, and a retry."""


class NoThingError(NoSuchRecordError):
    """The thing does not exist."""

    code = "fleet.no_thing"
    cause = "{target} has no thing {device}."
    fix = "Check the spelling; names are case-sensitive. List things: `aws iot list-things`"


class SeveralCertificatesError(ConflictError):
    """The old certificate is ambiguous."""

    code = "fleet.several_certificates"
    cause = "{device} has {count} active certificates at {target}: {ids}."
    fix = "Specify the certificate that was renewed: `{command} --old {first}`"
    command: str
    count: int
    device: str
    first: str
    ids: str
    target: str


class NotConnectedByItError(UnavailableError):
    """The device has not connected with its new certificate."""

    code = "fleet.not_connected_by_it"
    cause = (
        "{device} {detail}. The old certificate {old} is {status} at {target}; the new certificate has the same "
        "policies and things."
    )
    fix = "Connect the device with its new certificate, and run the command again: `{command}`"
    command: str
    detail: str
    device: str
    old: str
    status: str
    target: str


@dataclass(frozen=True, slots=True)
class CarriedOverAttachments:
    """Policies and things carried over from an old certificate to a new one, or to be carried over."""

    old: str
    new: str
    policies: tuple[str, ...]
    things: tuple[str, ...]
    is_retired: bool = False


class AwsRenewer(AwsRevoker):
    """Follow-up of a certificate renewal."""

    def carry(
        self, name: str, certificate: ShippedCertificate, old: str | None, *, dry_run: bool, command: str
    ) -> CarriedOverAttachments:
        """Register a certificate with the policies and things of its predecessor; a repeated call has no effect.

        Raise `NoSuchRecordError`, `SeveralCertificatesError`.
        """
        new = certificate.thumbprint.hex()
        if (principals := self._principals(name)) is None:
            raise NoThingError(target=self.description, device=name)
        arns = {arn.rpartition("/")[2]: arn for arn in principals}
        known = self._select_old_certificate(name, {one: arn for one, arn in arns.items() if one != new}, old, command)
        policies, things = sorted(self._policies_of(arns[known])), list(self._things_of(arns[known]))
        carried = CarriedOverAttachments(known, new, tuple(policies), tuple(things))
        if dry_run:
            return carried
        with self._translated(name):
            try:
                arn = self._iot.register_certificate_without_ca(certificatePem=certificate.pem(), status=ACTIVE)[
                    "certificateArn"
                ]
            except self._iot.exceptions.ResourceAlreadyExistsException:
                arn = self._iot.describe_certificate(certificateId=new)["certificateDescription"]["certificateArn"]
            for policy in policies:
                self._iot.attach_policy(policyName=policy, target=arn)
            for thing in things:
                self._iot.attach_thing_principal(thingName=thing, principal=arn)
        return carried

    def common_name_of(self, certificate_id: str) -> str | None:
        """Return the common name of a registered certificate."""
        pem = (self._described(certificate_id) or {}).get("certificatePem", "")
        return parse_any(pem).subject_cn if pem else None

    def _select_old_certificate(self, name: str, others: dict[str, str], old: str | None, command: str) -> str:
        """Return the old certificate of a thing."""
        if old is not None and old in others:
            return old
        active = [one for one in others if (self._described(one) or {}).get("status") == ACTIVE]
        found = active or list(others)
        if not found:
            raise NoSuchRecordError(target=self.description, device=f"{name} with an older certificate")
        if len(found) > 1 or old is not None:
            raise SeveralCertificatesError(
                device=name,
                count=len(found),
                ids=", ".join(found),
                first=found[0],
                command=command,
                target=self.description,
            )
        return found[0]

    def retire_old(
        self,
        name: str,
        carried: CarriedOverAttachments,
        wait: timedelta,
        *,
        command: str,
        sleep: Callable[[float], None] = time.sleep,
    ) -> bool:
        """Deactivate the old certificate after the device has connected; reactivate it after a disconnection.

        Return whether it was retired: one that other things use remains. Raise `NotConnectedByItError`.
        """
        described = self._described(carried.new) or {}
        since = described.get("creationDate")
        facts = {"device": name, "old": carried.old, "target": self.description, "command": command}
        if not self._seen(name, since, wait, sleep):
            status = str((self._described(carried.old) or {}).get("status", "gone"))
            detail = f"did not connect within {int(wait.total_seconds())} s"
            raise NotConnectedByItError(detail=detail, status=status, **facts)
        if any(thing != name for thing in carried.things):
            return False
        with self._translated(name):
            self._iot.update_certificate(certificateId=carried.old, newStatus="INACTIVE")
        if self._reconnects(name, sleep):
            return True
        with self._translated(name):
            self._iot.update_certificate(certificateId=carried.old, newStatus=ACTIVE)
        detail = "connects by its old certificate still, and was cut off without it"
        raise NotConnectedByItError(detail=detail, status=ACTIVE, **facts)

    def _seen(self, name: str, since: datetime | None, wait: timedelta, sleep: Callable[[float], None]) -> bool:
        """Wait until a device has connected after `since`."""
        for _ in range(max(1, int(wait.total_seconds() / _LOOK_S))):
            with self._translated(name):
                seen = self._iot.get_thing_connectivity_data(thingName=name)
            at = seen.get("timestamp")
            if seen.get("connected") and (since is None or at is None or at >= since):
                return True
            sleep(_LOOK_S)
        return False

    def _reconnects(self, name: str, sleep: Callable[[float], None]) -> bool:
        """Return whether a device stays connected, or reconnects, after its old certificate was deactivated."""
        sleep(_LOOK_S)
        return self._seen(name, None, _BACK_WITHIN, sleep)


def format_result(carried: CarriedOverAttachments) -> Sequence[tuple[str, object]]:
    """Return the result as names and values for output."""
    return [
        ("old", carried.old),
        ("certificate", carried.new),
        ("policies", list(carried.policies)),
        ("things", list(carried.things)),
        ("retired", carried.is_retired),
    ]
