"""Parser of scenario files. It reports every mistake with its line, including unknown keys."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from birthmark.agent.config.toml_tables import TEXT, ConfigInvalidError, Table, parse_files
from birthmark.device_transports.identity_and_trust import ServerTrust
from birthmark.swarm.errors import TargetNotNamedError
from birthmark.swarm.model import (
    DeviceGroup,
    Fault,
    Origin,
    RegistrationProtocol,
    SwarmTransport,
    SwarmVerdict,
    TargetKind,
)
from birthmark.swarm.scenario import value_parsers
from birthmark.swarm.scenario.model import AMQPS_PORT, Identities, Scenario, SwarmTarget, TargetSpec

AZURE = "global.azure-devices-provisioning.net"
_HTTPS = 443
_SCOPE = 'eval "$(birthmark env)"'
_HUBS = "birthmark hub ls"
_ENDPOINT = "aws iot describe-endpoint --endpoint-type iot:Data-ATS --query endpointAddress --output text"


def resolve(spec: TargetSpec, facts: Mapping[str, Any], environment: Mapping[str, str]) -> SwarmTarget:
    """Return the target: specified values override known ones. Raise `TargetNotNamedError`."""
    host, id_scope = spec.host or facts.get("host"), spec.id_scope or facts.get("id_scope")
    if spec.where is TargetKind.AZURE and spec.way is not RegistrationProtocol.NONE:
        host = host or environment.get("PROVISIONING_HOST") or AZURE
        id_scope = id_scope or environment.get("PROVISIONING_IDSCOPE")
        if not id_scope:
            raise TargetNotNamedError(where=spec.where, what="the ID scope", option="--id-scope", command=_SCOPE)
    if spec.where is TargetKind.AWS:
        host = host or environment.get("AWS_IOT_ENDPOINT")
    if not host:
        what = "the data endpoint" if spec.where.is_aws else "the hub"
        command = _ENDPOINT if spec.where.is_aws else _HUBS
        raise TargetNotNamedError(where=spec.where, what=what, option="--host", command=command)
    trust = None if spec.trust is None else ServerTrust.of([spec.trust]).pem
    return SwarmTarget(
        where=spec.where,
        host=host,
        id_scope=id_scope or "",
        way=spec.way,
        mqtt_port=spec.mqtt_port,
        amqp_port=spec.amqp_port or facts.get("amqp_port") or AMQPS_PORT,
        https_port=spec.https_port or facts.get("https_port", _HTTPS),
        est_url=spec.est_url or facts.get("est_url", ""),
        trust=trust or facts.get("trust"),
        level=spec.level if spec.where.is_aws else 4,
        tls=spec.tls,
        at_once=spec.at_once,
    )


MAX_FILE_BYTES = 1024 * 1024
MAX_DEVICES = 100_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # and of a file, one per device
_MAX_PORT = 65_535
_MAX_SIZE = 256 * 1024
_MAX_KEEP_ALIVE_S = 65_535
_ROUNDING = 1e-9
LEVELS: Mapping[str, int] = {"3.1.1": 4, "5": 5}
TLS: Mapping[str, str] = {"1.2": "1.2", "1.3": "1.3"}


class ScenarioInvalidError(ConfigInvalidError):
    """The scenario is not valid."""

    code = "swarm.scenario_invalid"
    cause = "{file}:{line}: {key}: {detail}."
    fix = "{accepted}. To write a file with every key and its meaning: `birthmark swarm init {file}.new`"


def parse_scenario(file: Path, text: str) -> Scenario:
    """Return the scenario of a text. Raise `ScenarioInvalidError`, which lists all mistakes."""
    try:
        return _parsed(file, text)
    except ConfigInvalidError as error:
        raise ScenarioInvalidError(
            file=error.file,
            line=error.line,
            key=error.key,
            detail=error.detail,
            accepted=error.accepted.removesuffix("."),
            others=error.others,
        ) from error


def _parsed(file: Path, text: str) -> Scenario:
    top = parse_files([(file, text)])
    given = Scenario()
    groups = top.need_table("group")
    scenario = Scenario(
        wish=_wish(top.table("target")),
        identities=_identities(top.table("identities")),
        groups=tuple(_group(groups.table(name), name) for name in groups.names),
        duration_s=_or(top.take("duration", value_parsers.some_time), given.duration_s),
        seed=_or(top.take("seed", value_parsers.number(0, 2**31)), given.seed),
        title=top.take("title", TEXT) or given.title,
    )
    top.refuse_rest()
    if not scenario.groups:
        top.wrong("group", "names no group", "Add a table such as `[group.meters]` with `devices = 50` below")
    _check_whole(top, scenario)
    top.source.check()
    return scenario


def _wish(table: Table) -> TargetSpec:
    given = TargetSpec()
    port = value_parsers.number(1, _MAX_PORT)
    wish = TargetSpec(
        where=table.take("to", value_parsers.one_of(TargetKind)) or given.where,
        host=table.take("host", TEXT),
        id_scope=table.take("id_scope", TEXT),
        way=table.take("register", value_parsers.one_of(RegistrationProtocol)) or given.way,
        mqtt_port=table.take("mqtt_port", port) or given.mqtt_port,
        amqp_port=table.take("amqp_port", port),
        https_port=table.take("https_port", port),
        est_url=table.take("est_url", TEXT),
        trust=table.take("trust", value_parsers.path),
        level=table.take("mqtt", value_parsers.word_of(LEVELS)) or given.level,
        tls=table.take("tls", value_parsers.word_of(TLS)) or given.tls,
        at_once=table.take("at_once", value_parsers.number(1, MAX_DEVICES)) or given.at_once,
    )
    table.refuse_rest()
    return wish


def _identities(table: Table) -> Identities:
    given = Identities()
    found = Identities(
        directory=table.take("directory", value_parsers.path) or given.directory,
        origin=table.take("from", value_parsers.one_of(Origin)) or given.origin,
        ca_cert=table.take("ca_cert", value_parsers.path),
        ca_key=table.take("ca_key", value_parsers.path),
        passphrase_file=table.take("ca_passphrase_file", value_parsers.path),
        est_user=table.take("est_user", TEXT),
        est_password_file=table.take("est_password_file", value_parsers.path),
        lifetime_s=table.take("lifetime", value_parsers.some_time) or given.lifetime_s,
    )
    if (found.ca_cert is None) != (found.ca_key is None):
        missing = "ca_cert" if found.ca_cert is None else "ca_key"
        table.wrong(missing, "is missing", f'Add it: `{missing} = "file.pem"`, or leave both out')
    if (found.est_user is None) != (found.est_password_file is None):
        missing = "est_user" if found.est_user is None else "est_password_file"
        table.wrong(missing, "is missing", f'Add it: `{missing} = "…"`, or leave both out')
    table.refuse_rest()
    return found


def _group(table: Table, name: str) -> DeviceGroup:
    given = DeviceGroup(name, 0)
    if "devices" not in table:
        table.wrong("devices", "is missing", "Add it: `devices = 50`")
    renew = table.take("renew", value_parsers.renewal) or (0.0, 0.0)
    group = DeviceGroup(
        name=name,
        count=table.take("devices", value_parsers.number(1, MAX_DEVICES)) or 0,
        device=table.take("name", TEXT) or "",
        ramp=table.take("ramp", value_parsers.rate) or given.ramp,
        start_s=_or(table.take("start", value_parsers.span), given.start_s),
        interval_s=_or(table.take("interval", value_parsers.span), given.interval_s),
        jitter=_or(table.take("jitter", value_parsers.share), given.jitter),
        payload=_or(table.take("payload", TEXT), given.payload),
        size=_or(table.take("size", value_parsers.number(1, _MAX_SIZE)), given.size),
        topic=_or(table.take("topic", TEXT), given.topic),
        transport=_or(table.take("transport", value_parsers.one_of(SwarmTransport)), given.transport),
        keep_alive_s=_or(table.take("keep_alive", value_parsers.number(1, _MAX_KEEP_ALIVE_S)), given.keep_alive_s),
        stay_s=_or(table.take("stay", value_parsers.span), given.stay_s),
        away_s=_or(table.take("away", value_parsers.span), given.away_s),
        cut_s=_or(table.take("cut", value_parsers.span), given.cut_s),
        renew_s=renew[0],
        renew_at=renew[1],
        job_s=_or(table.take("job", value_parsers.span), given.job_s),
        jobs_fail=_or(table.take("jobs_fail", value_parsers.share), given.jobs_fail),
        storm_s=_or(table.take("storm", value_parsers.spans), given.storm_s),
        misbehave=_table_of(table.table("misbehave"), value_parsers.share),
        expect=_table_of(table.table("expect"), value_parsers.one_of(SwarmVerdict)),
        patience_s=_or(table.take("patience", value_parsers.some_time), given.patience_s),
        skew_s=_or(table.take("skew", value_parsers.some_time), given.skew_s),
    )
    if not _NAME.fullmatch(group.name_of(0)):
        detail = (
            "is not valid at every target: start with a letter or digit, then use letters, digits, . _ and -, at "
            "most 100 characters"
        )
        table.wrong("name", detail, '`name = "meter-{n}"`')
    if group.count > 1 and group.device and "{n}" not in group.device:
        table.wrong("name", "gives all devices one name", f'`name = "{group.device}-{{n}}"`')
    table.refuse_rest()
    return group


def _table_of(table: Table, read: Any) -> tuple[tuple[Fault, Any], ...]:
    found = [(fault, table.take(fault.value, read)) for fault in Fault]
    table.refuse_rest()
    return tuple((fault, value) for fault, value in found if value is not None)


def _check_whole(top: Table, scenario: Scenario) -> None:
    """Report group settings that the target or the identities do not support."""
    origin, groups = scenario.identities.origin, top.table("group")
    for group in scenario.groups:
        table, faults = groups.table(group.name), dict(group.misbehave)
        misbehave = table.table("misbehave")
        if group.job_s and not scenario.wish.where.is_aws:
            table.wrong("job", "is of no use but at AWS, which has jobs", "Leave it out")
        _check_transport(table, group, is_aws=scenario.wish.where.is_aws)
        if group.renews and scenario.wish.where.is_aws:
            table.wrong("renew", "is of no use at AWS, which knows each certificate by itself", "Leave it out")
        if group.renews and origin is not Origin.EST and scenario.wish.est_url is None:
            table.wrong("renew", "needs certificates that EST renews", 'Under `[identities]`: `from = "est"`')
        if Fault.RENEW_OTHER in faults and origin is not Origin.EST and scenario.wish.est_url is None:
            misbehave.wrong("renew_other", "needs certificates of EST", 'Under `[identities]`: `from = "est"`')
        if Fault.EXPIRED in faults and origin is Origin.EST:
            misbehave.wrong("expired", "needs a CA at hand to sign one", 'Under `[identities]`: `from = "ca"`')
        if sum(faults.values()) > 1 + _ROUNDING:
            detail = f"makes {sum(faults.values()):.0%} of the group misbehave"
            table.wrong("misbehave", detail, "Limit the shares to 100% in total: each device misbehaves in one way")
    names = [group.name_of(number) for group in scenario.groups for number in range(group.count)]
    if len(set(names)) != len(names):
        top.wrong("group", "has two devices of the same name", 'Give each group a `name = "…-{n}"` of its own')
    if len(names) > MAX_DEVICES:
        top.wrong("group", f"has more than {MAX_DEVICES} devices", "Run several processes")


def _check_transport(table: Table, group: DeviceGroup, *, is_aws: bool) -> None:
    if group.transport is not SwarmTransport.AMQP:
        return
    if is_aws:
        table.wrong("transport", "is not supported by AWS, which has no AMQP", 'Use `transport = "mqtt"`')
    if group.misbehave:
        detail = "requires MQTT, because faults are MQTT packets and connections"
        table.wrong("misbehave", detail, 'Move the faults to a group with `transport = "mqtt"`')


def _or(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value


def override(scenario: Scenario, **given: Any) -> Scenario:
    """Return the scenario with the values of the command line; None changes nothing."""
    return replace(scenario, **{name: value for name, value in given.items() if value is not None})
