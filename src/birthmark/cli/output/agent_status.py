"""Status of an agent as rows: its configuration, assignment and certificates."""

import os
from typing import Any

from birthmark import flock
from birthmark.agent.identity_lifecycle import Agent
from birthmark.agent.managed_certificate_list import ManagedCertificate
from birthmark.agent.running_instance import running_pid
from birthmark.agent.state_directory import AgentPaths
from birthmark.agent.tpm_identity import open_tpm
from birthmark.cli.output.command_output import certificate_row
from birthmark.keys.tpm_attestation import TpmSettings


def status_row(agent: Agent, paths: AgentPaths) -> dict[str, Any]:
    state, held, is_taken = agent.state, agent.held(), flock.is_locked(paths.lock)
    row: dict[str, Any] = {
        "running": is_taken and running_pid(paths.lock) != os.getpid(),
        "connected": state.is_connected and is_taken,
        "hub": state.hub,
        "device_id": state.device_id,
        "registration_id": state.registration_id,
    }
    renew_at = None
    if held is not None:
        row |= certificate_row(held.leaf)
        row["key"] = held.key.handle.describe()
        renew_at = agent.renew_at(held)
    elif isinstance(given := agent.config.source.identity, TpmSettings):
        row["key"] = open_tpm(given).describe
    row["renew_at"] = None if renew_at is None else renew_at.isoformat()
    row["renewals"] = state.renewals
    row["certificates"] = [_kept(agent, managed) for managed in agent.managed.values()]
    row["clock"] = agent.clock.why or None
    row["configuration"] = agent.instead_of_config or _configuration(agent)
    if state.error is not None:
        row |= {
            "error_at": state.error.at.isoformat(timespec="seconds"),
            "error": state.error.code,
            "cause": state.error.cause,
            "fix": state.error.fix,
        }
    return row


def _configuration(agent: Agent) -> str:
    if agent.state.config_digest == agent.config.digest:
        return "applied"
    return "not applied yet" if agent.state.config_digest is None else "changed since it was applied"


def _kept(agent: Agent, managed: ManagedCertificate) -> dict[str, Any]:
    """Return the status of a managed certificate: expiry, renewal time and renewal error."""
    held = agent.identities.slot(managed.id).current()
    at = None if held is None else agent.keeper.renew_at(managed, held)
    failing = agent.state.failing.get(managed.id)
    return {
        "id": managed.id,
        "kind": managed.kind.value,
        "not_after": None if held is None else held.leaf.not_after.isoformat(),
        "renew_at": None if at is None else at.isoformat(timespec="seconds"),
        "is_unfinished": agent.keeper.is_unfinished(managed.id),
        "failing": None if failing is None else failing.code,
    }


def format_certificates(certificates: list[dict[str, Any]]) -> list[str]:
    """Format managed certificates as text lines."""
    return [
        f"{one['id']} until {one['not_after'] or 'it is issued'}"
        + (f", renewed at {one['renew_at']}" if one["renew_at"] else "")
        + (f", failing: {one['failing']}" if one["failing"] else "")
        for one in certificates
    ]
