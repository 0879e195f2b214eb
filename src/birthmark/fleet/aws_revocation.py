"""Revocation of a lost device at AWS IoT Core: its certificates are revoked, which also closes their connections."""

from collections.abc import Sequence

from birthmark.devices.model import RevocationOutcome, RevokedPart
from birthmark.errors import BirthmarkError
from birthmark.fleet.aws_iot_client import AwsAccount
from birthmark.pki.certificates import Thumbprint

REVOKED = "REVOKED"


class AwsRevoker(AwsAccount):
    """Revokes devices at AWS IoT Core."""

    def revoke_device(self, name: str, certificates: Sequence[Thumbprint], *, dry_run: bool) -> list[RevokedPart]:
        """Revoke a thing's certificates and further known ones of the device; return the outcome of each."""
        attached = [arn.rpartition("/")[2] for arn in self._principals(name) or ()]
        ids = dict.fromkeys([*attached, *(one.hex() for one in certificates)])
        return [row for one in ids for row in self._taken(name, one, dry_run=dry_run)]

    def _taken(self, name: str, certificate_id: str, *, dry_run: bool) -> list[RevokedPart]:
        """Revoke one certificate; an error becomes a failed outcome, so that the others are still revoked."""
        try:
            return self._lose(name, certificate_id, dry_run=dry_run)
        except BirthmarkError as error:
            failed = error.explain_cause(), error.explain_fix()
            return [RevokedPart(self._place, "certificate", certificate_id, RevocationOutcome.FAILED, *failed)]

    def _lose(self, name: str, certificate_id: str, *, dry_run: bool) -> list[RevokedPart]:
        if (described := self._described(certificate_id)) is None:
            return []
        note = self._shared(str(described["certificateArn"]), name)
        done = (
            RevocationOutcome.WAS_REVOKED
            if described["status"] == REVOKED
            else RevocationOutcome.WOULD_REVOKE
            if dry_run
            else RevocationOutcome.REVOKED
        )
        if done is RevocationOutcome.REVOKED:
            with self._translated(name):
                self._iot.update_certificate(certificateId=certificate_id, newStatus=REVOKED)
        return [RevokedPart(self._place, "certificate", certificate_id, done, note)]

    @property
    def _place(self) -> str:
        return f"AWS IoT {self._iot.meta.region_name}"
