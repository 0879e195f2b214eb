"""`birthmark agent tpm`: public keys of the device's TPM for enrollment at a provisioning service."""

import shlex
from typing import Annotated, Any

import typer

from birthmark.agent.config.model import DpsSource
from birthmark.cli.options.agent import AgentOptions
from birthmark.cli.output.command_output import emit
from birthmark.dps.wire import registration_id_of, tpm_json
from birthmark.keys.tpm_attestation import Tpm, TpmSettings
from birthmark.pki.tpm_public_key import parse_tpm_public


def show(
    options: AgentOptions,
    tcti: Annotated[
        str | None, typer.Option(metavar="TCTI", help="TPM transport (TCTI). Default: from the configuration.")
    ] = None,
) -> None:
    """Show the TPM's endorsement key and storage root key.

    Enroll the device with these keys. Missing keys are created in the TPM.
    """
    settings, name = _asked(options, tcti)
    endorsement, root = Tpm(settings).public_keys()
    told = tpm_json(endorsement, root)
    name = name or registration_id_of(parse_tpm_public(endorsement, "endorsement key"))
    row: dict[str, Any] = {
        "registration_id": name,
        "endorsement_key": told["endorsementKey"],
        "storage_root_key": told["storageRootKey"],
    }
    emit(options.as_json, row)
    words = ["birthmark", "device", "enroll", name, "--endorsement-key", row["endorsement_key"]]
    typer.echo(f"Enroll it: {shlex.join([*words, '--storage-root-key', row['storage_root_key']])}", err=True)


def _asked(options: AgentOptions, tcti: str | None) -> tuple[TpmSettings, str | None]:
    """Return the selected TPM, and the registration ID if configured."""
    if tcti is not None:
        return TpmSettings(tcti), None
    config, _ = options.place.read()
    return config.tpm, config.source.registration_id if isinstance(config.source, DpsSource) else None
