"""Agent factory: opens an agent's state, keys, and clock from its configuration and root."""

from collections.abc import Mapping
from datetime import timedelta

from birthmark.agent.certificate_sources import MakeLinks, cloud_trust
from birthmark.agent.clock_sync_transports import AskTime
from birthmark.agent.config.model import AgentConfig
from birthmark.agent.identity_lifecycle import Agent
from birthmark.agent.key_store import KeyStore
from birthmark.agent.preloaded_and_issued_identities import IdentityStore
from birthmark.agent.state import AgentState, boot_id, read_state
from birthmark.agent.state_directory import AgentPaths
from birthmark.agent.trusted_clock import BUILT, Timekeeper
from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.device_transports.identity_and_trust import ServerTrust
from birthmark.device_transports.openssl.server_time import ask_time
from birthmark.errors import BirthmarkError


def open_agent(
    config: AgentConfig,
    paths: AgentPaths,
    *,
    make_links: MakeLinks,
    environment: Mapping[str, str],
    clock: Clock,
    entropy: Entropy,
    ask_time: AskTime = ask_time,
    boot: str | None = None,
    is_looking: bool = False,
) -> Agent:
    """Open the agent of this configuration and root; close `identities.keys` when done.

    With `is_looking` (read-only), an unreadable trust bundle is accepted: the agent then trusts no server and reports
    why.
    """
    keys = KeyStore(paths, config.keys, config.preloaded_keys, entropy, config.key_algorithm)
    problem = None
    try:
        trust = cloud_trust(environment, config.trust_bundle)
    except BirthmarkError as error:
        if not is_looking:
            raise
        trust, problem = ServerTrust(""), error
    state = read_state(paths.state)
    boot = boot_id() if boot is None else boot
    time = timekeeper_of(state, clock, boot)
    store = IdentityStore(paths, keys)
    agent = Agent(config, paths, store, make_links, trust, time, entropy, ask_time, boot, state)
    agent.trust_problem = problem
    return agent


def timekeeper_of(state: AgentState, clock: Clock, boot: str) -> Timekeeper:
    """Return the clock of an agent with this `state`; an offset is valid until the next boot."""
    is_same_boot = state.clock_boot == boot != ""
    offset = timedelta(seconds=state.clock_offset_s if is_same_boot else 0)
    return Timekeeper(clock, max(BUILT, state.seen_at or BUILT), offset, state.clock_why if offset else "")
