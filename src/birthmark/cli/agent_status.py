"""What `birthmark agent status` shows."""

import os
from typing import Any

from birthmark.agent.control import running_pid
from birthmark.agent.files import Places
from birthmark.agent.service import Agent
from birthmark.cli.common import certificate_row


def status_row(agent: Agent, places: Places) -> dict[str, Any]:
    state, held, pid = agent.state, agent.held(), running_pid(places.lock)
    row: dict[str, Any] = {
        "running": pid not in (None, os.getpid()),
        "connected": state.is_connected and pid is not None,
        "hub": state.hub,
        "device_id": state.device_id,
        "registration_id": state.registration_id,
    }
    renew_at = None
    if held is not None:
        row |= certificate_row(held.leaf)
        row["key"] = held.key.handle.describe()
        renew_at = agent.renew_at(held)
    row["renew_at"] = None if renew_at is None else renew_at.isoformat()
    row["renewals"] = state.renewals
    row["clock"] = agent.clock.why or None
    row["configuration"] = agent.instead_of_config or _configuration(agent)
    if state.error is not None:
        row |= {"error": state.error.code, "cause": state.error.cause, "fix": state.error.fix}
    return row


def _configuration(agent: Agent) -> str:
    if agent.state.config_digest == agent.config.digest:
        return "applied"
    return "not applied yet" if agent.state.config_digest is None else "changed since it was applied"
