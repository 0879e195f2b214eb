"""The scenario file: what it says, and every mistake in it."""

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.errors import BirthmarkError
from birthmark.swarm.errors import TargetNotNamedError
from birthmark.swarm.model import DeviceGroup, Fault, RegistrationProtocol, SwarmTransport, SwarmVerdict, TargetKind
from birthmark.swarm.run_setup import tagged
from birthmark.swarm.scenario.example import example
from birthmark.swarm.scenario.model import Scenario, TargetSpec
from birthmark.swarm.scenario.parser import AZURE, MAX_DEVICES, ScenarioInvalidError, parse_scenario, resolve
from birthmark.swarm.scenario.setting_catalog import SECTIONS
from support.tools_pages import the_page_of

FILE = Path("swarm.toml")
LEAST = "[group.meters]\ndevices = 50\n"


def parse(text: str) -> Scenario:
    return parse_scenario(FILE, text)


def refused(text: str) -> str:
    with pytest.raises(ScenarioInvalidError) as refusal:
        parse(text)
    error = refusal.value
    return f"{error.explain_cause()}\n{error.explain_fix()}\n{error.others}"


def test_the_least_that_is_needed_is_a_group_with_its_devices() -> None:
    scenario = parse(LEAST)
    assert scenario.groups == (DeviceGroup("meters", 50),)
    assert scenario.wish == TargetSpec()
    assert [scenario.groups[0].name_of(number) for number in (0, 49)] == ["meters-0", "meters-49"]


def test_groups_of_one_scenario_use_different_protocols() -> None:
    scenario = parse(f'{LEAST}transport = "amqp"\n[group.others]\ndevices = 1\n[target]\namqp_port = 5672\n')
    assert [group.transport for group in scenario.groups] == [SwarmTransport.AMQP, SwarmTransport.MQTT]
    assert scenario.wish.amqp_port == 5672


@pytest.mark.parametrize(
    ("spec", "facts", "port"),
    [
        ({}, {}, 5671),
        ({}, {"amqp_port": None}, 5671),
        ({}, {"amqp_port": 7}, 7),
        ({"amqp_port": 9}, {"amqp_port": 7}, 9),
    ],
)
def test_the_amqp_port_is_the_scenario_s_the_local_server_s_or_the_standard_one(
    spec: dict[str, int], facts: dict[str, int | None], port: int
) -> None:
    assert resolve(replace(TargetSpec(), **spec), {"host": "hub", **facts}, {}).amqp_port == port  # type: ignore[arg-type]


def test_a_storm_after_the_end_never_comes() -> None:
    scenario = parse('duration = "30s"\n' + LEAST + 'storm = ["10s", "30s", 60]\n')
    assert scenario.never() == [("meters", 30.0), ("meters", 60.0)]


def test_everything_that_can_be_said_is_understood() -> None:
    scenario = parse(
        """
        title = "night"
        duration = "5m"
        seed = 7
        [target]
        to = "azure"
        host = "dps.example"
        id_scope = "0ne1"
        register = "https"
        est_url = "https://est.example/.well-known/est"
        tls = "1.3"
        [identities]
        from = "est"
        est_user = "line"
        est_password_file = "word"
        [group.meters]
        devices = 100
        name = "m{n}"
        ramp = 2.5
        interval = "500ms"
        jitter = "20%"
        size = 200
        renew = "80%"
        storm = ["30s", 60]
        [group.meters.misbehave]
        garbage = "1%"
        [group.meters.expect]
        garbage = "tolerated"
        [group.idle]
        devices = 1
        interval = 0
        renew = "10s"
        """
    )
    meters, idle = scenario.groups
    assert (scenario.title, scenario.duration_s, scenario.seed, scenario.count) == ("night", 300, 7, 101)
    assert (scenario.wish.where, scenario.wish.way, scenario.wish.tls) == (
        TargetKind.AZURE,
        RegistrationProtocol.HTTPS,
        "1.3",
    )
    assert (meters.ramp, meters.interval_s, meters.jitter, meters.renew_at) == (2.5, 0.5, 0.2, 0.8)
    assert (meters.storm_s, meters.name_of(3)) == ((30, 60), "m3")
    assert meters.misbehave == ((Fault.GARBAGE, 0.01),)
    assert meters.expect == ((Fault.GARBAGE, SwarmVerdict.TOLERATED),)
    assert (idle.interval_s, idle.renew_s) == (0, 10)


def test_an_unknown_key_is_a_mistake_with_its_line_and_what_was_meant() -> None:
    told = refused(f"{LEAST}intervals = 5\n\n[target]\nhots = 'x'\n[group.meters.misbehave]\ngarbag = 0.1\n")
    assert "swarm.toml:3: group.meters.intervals: is not known; did you mean interval?" in told
    assert "swarm.toml:6: target.hots: is not known; did you mean host?" in told
    assert "swarm.toml:8: group.meters.misbehave.garbag: is not known; did you mean garbage?" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "group: is missing"),
        ("[group]\n", "names no group"),
        ("[group.meters]\n", "group.meters.devices: is missing"),
        ("[group.meters]\ndevices = 0\n", f"must be a whole number from 1 to {MAX_DEVICES}"),
        ("[group.meters]\ndevices = true\n", "must be a whole number"),
        (f"{LEAST}interval = '5 parsecs'\n", "must be a duration"),
        (f"{LEAST}interval = -1\n", "must be a duration"),
        (f"{LEAST}transport = 'http'\n", "group.meters.transport: is not known"),
        (f"{LEAST}transport = 'amqp'\n[target]\nto = 'aws'\n", "group.meters.transport: is not supported by AWS"),
        (
            f"{LEAST}transport = 'amqp'\n[group.meters.misbehave]\ngarbage = '1%'\n",
            "group.meters.misbehave: requires MQTT",
        ),
        (f"{LEAST}jitter = '120%'\n", "must be a percentage"),
        (f"{LEAST}ramp = 0\n", "devices per second"),
        (f"{LEAST}storm = '5s'\n", "must be a list of durations"),
        (f"{LEAST}name = '../up-{{n}}'\n", "group.meters.name: is not valid at every target"),
        ("[group.'a b']\ndevices = 1\n", "is not valid at every target"),
        (f"{LEAST}name = 'one'\n", "gives all devices one name"),
        (f"{LEAST}renew = '10s'\n", "needs certificates that EST renews"),
        (f"{LEAST}renew = '9s'\n[identities]\nfrom = 'est'\n[target]\nto = 'aws'\n", "is of no use at AWS"),
        (f"{LEAST}[group.meters.misbehave]\nrenew_other = 1\n", "needs certificates of EST"),
        (f"{LEAST}[group.meters.misbehave]\ngarbage = 0.7\nexpired = '70%'\n", "makes 140% of the group misbehave"),
        (f"{LEAST}[group.meters.misbehave]\nexpired = 1\n[identities]\nfrom = 'est'\n", "needs a CA at hand"),
        (f"{LEAST}[group.meters.expect]\ngarbage = 'maybe'\n", 'garbage = "stopped"'),
        (f"{LEAST}[target]\nto = 'gcp'\n", 'to = "local-aws"'),
        (f"{LEAST}[identities]\nca_cert = 'a'\n", "identities.ca_key: is missing"),
        (f"{LEAST}[identities]\nest_user = 'a'\n", "identities.est_password_file: is missing"),
        (f"{LEAST}name = 'm{{n}}'\n[group.b]\ndevices = 1\nname = 'm{{n}}'\n", "two devices of the same name"),
        ("[group.meters\n", "(syntax)"),
    ],
)
def test_a_mistake_says_what_would_be_right(text: str, told: str) -> None:
    assert told in refused(text)


@given(st.text(max_size=200))
def test_any_text_is_a_scenario_or_a_mistake(text: str) -> None:
    try:
        parse(text)
    except BirthmarkError as error:
        assert error.code == "swarm.scenario_invalid"


@pytest.mark.parametrize("where", TargetKind)
def test_the_example_is_a_scenario(where: TargetKind) -> None:
    scenario = parse(example(where))
    assert scenario.wish.where is where
    assert [group.count for group in scenario.groups] == [50]


def test_the_example_with_every_value_that_it_shows_is_the_same_scenario() -> None:
    lines = example(TargetKind.LOCAL).splitlines()
    all_set = "\n".join(re.sub(r"^# (\w+ = )(?!…)", r"\1", line) for line in lines)
    tables = tomllib.loads(all_set)
    assert len(tables["group"]["meters"]["expect"]) == len(Fault)
    plain = parse(example(TargetKind.LOCAL))
    shown = parse(all_set)
    assert shown.identities == plain.identities
    assert shown.wish == plain.wish
    assert (shown.duration_s, shown.seed, shown.title) == (plain.duration_s, plain.seed, plain.title)
    group, other = shown.groups[0], plain.groups[0]
    named = {name for name in DeviceGroup.__slots__ if getattr(group, name) != getattr(other, name)}
    assert named <= {"topic", "expect"}  # which say what is otherwise implied


def test_the_table_of_settings_is_what_the_reader_asks_for() -> None:
    for section in SECTIONS:
        (table,) = section.tables
        path = table.replace("NAME", "meters")
        head = LEAST if not path.startswith("group") else ""
        place = f"[{path}]\n" if path else ""
        told = refused(f"{place}zzzzzz = 1\n{'devices = 1' if path == 'group.meters' else ''}\n{head}")
        known = re.search(r"Known here: ([a-z0-9_, ]+)", told)
        assert known is not None, told
        assert {one.key for one in section.settings} == set(known[1].split(", ")) - {
            "group",
            "target",
            "identities",
        } - ({"misbehave", "expect"} if path == "group.meters" else set())


def test_the_page_is_the_table() -> None:
    page = the_page_of("make_swarm")
    assert (Path(__file__).parents[3] / "docs" / "reference" / "swarm.md").read_text() == page


def test_a_target_is_what_was_said_then_what_is_known() -> None:
    known = {"host": "local", "id_scope": "0ne2", "https_port": 8443, "trust": "PEM", "est_url": "https://e"}
    target = resolve(TargetSpec(), known, {})
    assert (target.host, target.id_scope, target.https_port, target.trust) == ("local", "0ne2", 8443, "PEM")
    assert resolve(TargetSpec(host="other"), known, {}).host == "other"
    azure = resolve(TargetSpec(TargetKind.AZURE), {}, {"PROVISIONING_IDSCOPE": "0ne3"})
    assert (azure.host, azure.id_scope, azure.https_port) == (AZURE, "0ne3", 443)
    assert resolve(TargetSpec(TargetKind.AWS, host="a", level=5), {}, {}).level == 5
    assert resolve(TargetSpec(TargetKind.AZURE, host="hub", way=RegistrationProtocol.NONE), {}, {}).host == "hub"


@pytest.mark.parametrize(
    "wish",
    [
        TargetSpec(TargetKind.AZURE),
        TargetSpec(TargetKind.AWS),
        TargetSpec(TargetKind.AZURE, way=RegistrationProtocol.NONE),
    ],
)
def test_a_target_without_a_name_is_refused(wish: TargetSpec) -> None:
    with pytest.raises(TargetNotNamedError):
        resolve(wish, {}, {})


def test_devices_are_named_after_the_directory_of_their_keys_where_nothing_else_is_said() -> None:
    scenario = tagged(Scenario(groups=(DeviceGroup("a", 1), DeviceGroup("b", 1, device="own-{n}"))), "3f9a")
    assert [group.name_of(0) for group in scenario.groups] == ["a-3f9a-0", "own-0"]
    assert tagged(scenario, "") == scenario
