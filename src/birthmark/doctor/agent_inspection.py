"""Inspection of the agent: its configuration, its secure elements, and the results of `birthmark agent check`."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from birthmark.agent.agent_factory import open_agent
from birthmark.agent.config import AgentConfig, PreloadedIdentity, read_config
from birthmark.agent.config.model import KeyLocation, TokenLocation
from birthmark.agent.diagnostic_checks import Check, CheckResult, Checks
from birthmark.agent.state_directory import AgentPaths
from birthmark.clock_and_entropy import SystemClock, SystemEntropy
from birthmark.device_transports.transport_selection import open_links
from birthmark.doctor.facts import CheckFacts, ChipSelection
from birthmark.doctor.file_inspection import text_of
from birthmark.doctor.pkcs11_probe import ProbeQuestion
from birthmark.doctor.setting_sources import SettingSource, SourcedSetting
from birthmark.errors import BirthmarkError


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """A configuration, parsed or rejected; `texts` are its files, which may hold secrets, for searching only."""

    file: Path
    root: Path
    config: AgentConfig | None
    refused: CheckFacts | None = None

    @property
    def texts(self) -> list[tuple[str, str]]:
        if self.config is None:
            return [(str(self.file), text_of(self.file))]
        return [(str(path), text) for path, text in self.config.texts]


def inspect_agent(named: SourcedSetting | None, root: Path) -> AgentFacts | None:
    """Return the agent's configuration; None if none is specified and the default file does not exist."""
    file = Path(named.value) if named is not None else AgentPaths(root).config
    if named is None and not file.exists():
        return None
    file = file.absolute()  # used in commands; its directory is used in the file
    try:
        return AgentFacts(file, root.absolute(), read_config(file))
    except BirthmarkError as error:
        return AgentFacts(file, root, None, _seen("identityd-config-well-formed", file, error))


def checks_of(agent: AgentFacts, environment: Mapping[str, str], *, is_offline: bool) -> list[CheckFacts]:
    """Return the problems that `birthmark agent check` finds."""
    if agent.config is None:
        return [] if agent.refused is None else [agent.refused]
    clock = SystemClock()
    try:
        opened = open_agent(
            agent.config,
            AgentPaths(agent.root),
            make_links=lambda identity, trust: open_links(identity, trust, clock),
            environment=environment,
            clock=clock,
            entropy=SystemEntropy(),
        )
    except (BirthmarkError, OSError) as error:
        return [_seen("certs-read", agent.file, error)] if isinstance(error, BirthmarkError) else []
    with closing(opened.identities.keys):
        found = asyncio.run(Checks(opened, is_offline).run())
    return [_of(one, agent.file) for one in found if one.result in {CheckResult.ERROR, CheckResult.WARNING}]


def _of(check: Check, file: Path) -> CheckFacts:
    if check.error is not None:
        return _seen(check.id, file, check.error)
    return CheckFacts(check.id, str(file), check.result is CheckResult.ERROR, check.details, check.command)


def _seen(name: str, file: Path, error: BirthmarkError) -> CheckFacts:
    return CheckFacts(
        name,
        str(file),
        is_error=True,
        details=str(error),
        code=error.code,
        cause=error.explain_cause(),
        fix=error.explain_fix(),
        facts=tuple(error.facts.items()),
        for_a_person=error.for_a_person or "",
    )


# ---- chips in the configuration


def has_token(agent: AgentFacts | None) -> bool:
    """Return whether the configuration names its own secure element."""
    return agent is not None and agent.config is not None and agent.config.keys is not None


def chips_in(agent: AgentFacts) -> Iterator[tuple[ChipSelection, ProbeQuestion]]:
    """Yield each key in a token, and the token for new keys."""
    config = agent.config
    if config is None or config.keys is None:
        return
    identity = config.source.identity
    given: list[KeyLocation | None] = [identity.key] if isinstance(identity, PreloadedIdentity) else []
    given += [*config.preloaded_keys.values(), config.keys.base_slot]
    asked = dict.fromkeys(one for one in given if isinstance(one, TokenLocation))
    for location in asked:
        yield _asked(agent, config.keys.module, location), _question(config.keys.module, location)


def _asked(agent: AgentFacts, module: Path, location: TokenLocation) -> ChipSelection:
    uri = location.uri

    def said(name: str, value: object, *written: str) -> SourcedSetting | None:
        if value is None:
            return None
        every = [(file, form) for form in written for file, text in agent.texts if form.format(value) in text]
        file, form = every[0] if every else (str(agent.file), written[0])
        return SourcedSetting(SettingSource.FILE, name, str(value), file=file, written=form)

    return ChipSelection(
        module=said("pkcs11_lib_path", uri.module_path or module, '"{}"', "{}"),
        token=said("token", uri.token, "token={}"),
        slot=said("slot-id", uri.slot_id, "slot-id={}"),
        pin_file=said("pin-source", uri.pin_source, "pin-source=file:{}", "pin-source=file://{}", "pin-source={}"),
        key=said("object", uri.object, "object={}"),
        has_inline_pin=location.pin is not None,
        config=str(agent.file),
    )


def _question(module: Path, location: TokenLocation) -> ProbeQuestion:
    uri = location.uri
    return ProbeQuestion(
        str(uri.module_path or module),
        token=None if uri.slot_id is not None else uri.token,
        serial=uri.serial,
        slot=uri.slot_id,
        pin_file=None if uri.pin_source is None else str(uri.pin_source),
        pin=None if location.pin is None else location.pin.reveal(),
    )
