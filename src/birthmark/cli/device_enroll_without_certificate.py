"""`birthmark device enroll` without a certificate: with the device's TPM, or with symmetric keys."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from birthmark import atomic_files
from birthmark.cli.option_checks_and_confirmation import only
from birthmark.cli.options.device_enrollment import DeviceOptions
from birthmark.cli.output.command_output import FileExistsAlreadyError
from birthmark.dps.wire import TpmAttestation, parse_tpm, registration_id_of

if TYPE_CHECKING:
    from birthmark.dps.model import TpmKeys


@dataclass(frozen=True, slots=True)
class TpmOptions:
    """TPM options instead of a certificate."""

    endorsement_key: Annotated[
        str | None,
        typer.Option(metavar="BASE64", help="Endorsement key of the TPM, as printed by `birthmark agent tpm` (Azure)."),
    ] = None
    storage_root_key: Annotated[
        str | None,
        typer.Option(metavar="BASE64", help="Storage root key of the TPM. Default: the first key presented."),
    ] = None

    symmetric_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Use service-generated symmetric keys; write the primary key to FILE (Azure)."
        ),
    ] = None

    def keys(self) -> "TpmKeys | None":
        """Return the given TPM keys, or None. Raise `TpmKeyInvalidError`."""
        only(self.endorsement_key is not None, "with --endorsement-key", storage_root_key=self.storage_root_key)
        if self.endorsement_key is None:
            return None
        return parse_tpm(TpmAttestation(self.endorsement_key, self.storage_root_key))


def check_file(file: Path, option: str, *, dry_run: bool) -> None:
    """Raise an error if the new key file cannot be written, before anything is created."""
    if file.exists() and not dry_run:
        raise FileExistsAlreadyError(path=file)
    if not file.absolute().parent.is_dir():
        raise typer.BadParameter(f"the directory {file.parent} does not exist", param_hint=option)


def enroll_keys(
    target: Any, file: Path, name: str, how: DeviceOptions, *, hub: str | None, dry_run: bool
) -> dict[str, str]:
    """Enroll a device with symmetric keys, write the primary key to a file, and return the output fields."""
    check_file(file, "--symmetric-key", dry_run=dry_run)
    done, key = target.enroll_keys(name, is_edge=how.edge, update=how.update, dry_run=dry_run, issue=how.issue, hub=hub)
    if key is not None:
        atomic_files.create(file, f"{key}\n".encode())
    return {"device": name, "outcome": done.value, "registration_id": name, "key": str(file)}


def enroll_tpm(
    target: Any, keys: "TpmKeys", name: str | None, how: DeviceOptions, *, hub: str | None, dry_run: bool
) -> dict[str, str]:
    """Enroll a device with its TPM, and return the output fields."""
    registration_id = name or registration_id_of(keys.endorsement)
    done = target.enroll_tpm(
        registration_id, keys, is_edge=how.edge, update=how.update, dry_run=dry_run, issue=how.issue, hub=hub
    )
    return {"device": registration_id, "outcome": done.value, "registration_id": registration_id}
