"""`birthmark enroll device --endorsement-key`: a device on record by its TPM."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from birthmark.cli.asking import only
from birthmark.dps.wire import TpmAttestation, parse_tpm, registration_id_of

if TYPE_CHECKING:
    from birthmark.dps.model import TpmKeys


@dataclass(frozen=True, slots=True)
class TpmOptions:
    """The TPM in the place of a certificate."""

    endorsement_key: Annotated[
        str | None, typer.Option(metavar="BASE64", help="By its TPM, as `birthmark agent tpm` shows it (Azure).")
    ] = None
    storage_root_key: Annotated[
        str | None, typer.Option(metavar="BASE64", help="Of that TPM; default: the first that registers.")
    ] = None

    def keys(self) -> "TpmKeys | None":
        """Return what was given, None where it was nothing. Raise `TpmKeyInvalidError`."""
        only(self.endorsement_key is not None, "with --endorsement-key", storage_root_key=self.storage_root_key)
        if self.endorsement_key is None:
            return None
        return parse_tpm(TpmAttestation(self.endorsement_key, self.storage_root_key))


def enroll_tpm(
    target: Any, keys: "TpmKeys", name: str | None, *, is_edge: bool, update: bool, dry_run: bool
) -> dict[str, str]:
    """Put a device on record by its TPM, and return what is to be shown of that."""
    registration_id = name or registration_id_of(keys.endorsement)
    done = target.enroll_tpm(registration_id, keys, is_edge=is_edge, update=update, dry_run=dry_run)
    return {"device": registration_id, "outcome": done.value, "registration_id": registration_id}
