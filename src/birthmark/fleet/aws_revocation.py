"""A lost device at AWS IoT Core: the certificates of its thing are revoked, which ends their connections too."""

from collections.abc import Sequence

from birthmark.devices.model import RevocationOutcome, RevokedPart
from birthmark.errors import BirthmarkError
from birthmark.fleet.aws_account import AwsAccount
from birthmark.pki.certificates import Thumbprint

REVOKED = "REVOKED"


class AwsRevoker(AwsAccount):
    """What takes a device back."""

    def lose(self, name: str, certificates: Sequence[Thumbprint], *, dry_run: bool) -> list[RevokedPart]:
        """Take a thing's certificates back, and those that are known to be the device's; say what became of each."""
        attached = [arn.rpartition("/")[2] for arn in self._principals(name) or ()]
        ids = dict.fromkeys([*attached, *(one.hex() for one in certificates)])
        return [row for one in ids for row in self._taken(name, one, dry_run=dry_run)]

    def _taken(self, name: str, certificate_id: str, *, dry_run: bool) -> list[RevokedPart]:
        """Take one back; what is refused is told, and the others are taken."""
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
