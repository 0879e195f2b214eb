"""What policies allow, as a table."""

import contextlib
import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.auth.policy_wildcards import glob_of
from birthmark.awsiot.model import Thing, ThingName
from birthmark.awsiot.rules.policy import (
    _SHARED,
    MAX_OF_ONE,
    MAX_SHARED,
    AuthDecision,
    ConnectionPermissions,
    PolicyMalformedError,
    check_new,
    parse_policy,
)
from birthmark.awsiot.rules.policy_variables import ConnectionContext, PolicyVariables, facts_of
from support.fakes import NOON
from support.pki.pki_builders import a_device

A = "arn:aws:iot:us-east-1:000000000000:"
ALLOWED, DENIED, SILENT = AuthDecision.ALLOWED, AuthDecision.EXPLICIT_DENY, AuthDecision.IMPLICIT_DENY
CERTIFICATE = a_device(common_name="cn*1").certificate


def a_thing(**attributes: str) -> Thing:
    return Thing(ThingName("pump-1"), "id", "pump", attributes, None, 1, NOON)


def facts(client_id: str = "pump-1", thing: Thing | None = None, connect: tuple[str, ...] = ()) -> PolicyVariables:
    return facts_of(CERTIFICATE, ConnectionContext(CERTIFICATE, client_id, "192.0.2.7", "localhost", connect), thing)


def allow(action: object, resource: object = "*", **more: object) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def deny(action: object, resource: object = "*", **more: object) -> dict[str, Any]:
    return {"Effect": "Deny", "Action": action, "Resource": resource, **more}


def document(*statements: object) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def outcome(
    statements: list[Any], action: str, resource: str, known: PolicyVariables | None = None, now: datetime = NOON
) -> AuthDecision:
    policy = parse_policy("p", document(*statements))
    return ConnectionPermissions([policy], known or facts()).decide(action, resource, now).outcome


ME = "${iot:ClientId}"
CN = "${iot:Certificate.Subject.CommonName}"
THING, CN = "${iot:Connection.Thing.ThingName}", "${iot:Certificate.Subject.CommonName}"


@pytest.mark.parametrize(
    ("statements", "action", "resource", "expected"),
    [
        ([allow("iot:*")], "iot:Connect", A + "client/x", ALLOWED),
        ([allow("*")], "iot:Publish", A + "topic/x", ALLOWED),
        ([allow(["iot:Connect", "greengrass:*"])], "iot:Connect", A + "client/x", ALLOWED),
        ([allow(["iot:Connect", "greengrass:*"])], "iot:Publish", A + "topic/x", SILENT),
        ([allow("iot:*"), deny("greengrass:*")], "iot:Publish", A + "topic/x", ALLOWED),
        ([allow("iot:pub*", A + "topic/*")], "iot:Publish", A + "topic/a/b/c", ALLOWED),
        ([allow("iot:Publish", A + "topic/a")], "iot:Publish", A + "topic/b", SILENT),
        ([allow("iot:Publish", A + "topic/a")], "iot:Receive", A + "topic/a", SILENT),
        ([allow("iot:*"), deny("iot:Publish", A + "topic/secret/*")], "iot:Publish", A + "topic/secret/1", DENIED),
        ([deny("iot:Publish"), allow("iot:*")], "iot:Publish", A + "topic/a", DENIED),
        ([allow(["iot:Connect", "iot:Publish"], ["arn:x", A + "topic/?"])], "iot:Publish", A + "topic/a", ALLOWED),
        ([allow("iot:Publish", A + "topic/?")], "iot:Publish", A + "topic/ab", SILENT),
        ([allow("iot:Subscribe", A + "topicfilter/a/+/b")], "iot:Subscribe", A + "topicfilter/a/+/b", ALLOWED),
        ([allow("iot:Subscribe", A + "topicfilter/a/+/b")], "iot:Subscribe", A + "topicfilter/a/x/b", SILENT),
        ([allow("iot:Subscribe", A + "topicfilter/a/*")], "iot:Subscribe", A + "topicfilter/a/#", ALLOWED),
        ([allow("iot:Subscribe", A + "topicfilter/a/#")], "iot:Subscribe", A + "topicfilter/a/b", SILENT),
        ([allow("iot:Connect", A + f"client/{ME}")], "iot:Connect", A + "client/pump-1", ALLOWED),
        ([allow("iot:Connect", A + f"client/{ME}")], "iot:Connect", A + "client/other", SILENT),
        ([allow("iot:Publish", A + f"topic/{ME}/*")], "iot:Publish", A + "topic/pump-1/t", ALLOWED),
        ([allow("iot:Publish", A + f"topic/{THING}")], "iot:Publish", A + "topic/pump-1", SILENT),
        ([allow("iot:Publish", A + f"topic/{CN}")], "iot:Publish", A + "topic/cn*1", ALLOWED),
        ([allow("iot:Publish", A + f"topic/{CN}")], "iot:Publish", A + "topic/cnX1", SILENT),
        ([allow("iot:Publish", A + "topic/a${*}b")], "iot:Publish", A + "topic/a*b", ALLOWED),
        ([allow("iot:Publish", A + "topic/a${*}b")], "iot:Publish", A + "topic/axb", SILENT),
        ([{"Effect": "Allow", "NotAction": "iot:Publish", "Resource": "*"}], "iot:Connect", A + "client/x", ALLOWED),
        ([{"Effect": "Allow", "NotAction": "iot:Publish", "Resource": "*"}], "iot:Publish", A + "topic/x", SILENT),
        ([{"Effect": "Allow", "Action": "iot:*", "NotResource": A + "topic/x"}], "iot:Publish", A + "topic/y", ALLOWED),
        ([{"Effect": "Allow", "Action": "iot:*", "NotResource": A + "topic/x"}], "iot:Publish", A + "topic/x", SILENT),
        ([{"Effect": "Allow", "Action": "*", "NotResource": "arn:${no:such}"}], "iot:Publish", A + "topic/y", SILENT),
    ],
)  # fmt: skip
def test_statements(statements: list[Any], action: str, resource: str, expected: AuthDecision) -> None:
    assert outcome(statements, action, resource) is expected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"StringEquals": {"iot:ClientId": "pump-1"}}, ALLOWED),
        ({"StringEquals": {"iot:ClientId": ["a", "pump-1"]}}, ALLOWED),
        ({"StringEquals": {"iot:ClientId": "x"}}, SILENT),
        ({"StringNotEquals": {"iot:ClientId": "x"}}, ALLOWED),
        ({"StringNotEquals": {"no:such": "x"}}, ALLOWED),
        ({"StringEquals": {"no:such": "x"}}, SILENT),
        ({"StringEqualsIfExists": {"no:such": "x"}}, ALLOWED),
        ({"StringLike": {"iot:ClientId": "pump-*"}}, ALLOWED),
        ({"StringLike": {"iot:ClientId": "valve-*"}}, SILENT),
        ({"StringEquals": {"iot:ClientId": "${iot:ClientId}"}}, ALLOWED),
        ({"Bool": {"iot:Connection.Thing.IsAttached": ["true"]}}, SILENT),
        ({"Bool": {"iot:Connection.Thing.IsAttached": False}}, ALLOWED),
        ({"Null": {"iot:Connection.Thing.ThingName": "true"}}, ALLOWED),
        ({"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}, ALLOWED),
        ({"NotIpAddress": {"aws:SourceIp": "192.0.2.0/24"}}, SILENT),
        ({"DateLessThan": {"aws:CurrentTime": "2026-06-02T00:00:00Z"}}, ALLOWED),
        ({"DateGreaterThan": {"aws:CurrentTime": "2026-06-02T00:00:00Z"}}, SILENT),
        ({"ForAllValues:StringEquals": {"iot:ConnectAttributes": ["LastWill"]}}, SILENT),
        ({"ForAllValues:StringEquals": {"iot:ConnectAttributes": ["LastWill", "PersistentConnect"]}}, ALLOWED),
        ({"ForAnyValue:StringEquals": {"iot:ConnectAttributes": ["PersistentConnect"]}}, ALLOWED),
        ({"ForAnyValue:StringEquals": {"iot:Certificate.Subject.CommonName.List": ["cn*1"]}}, ALLOWED),
    ],
)
def test_conditions(condition: object, expected: AuthDecision) -> None:
    known = facts(connect=("PersistentConnect",))
    assert outcome([allow("iot:Connect", "*", Condition=condition)], "iot:Connect", A + "client/x", known) is expected


def test_an_attached_thing_fills_its_variables() -> None:
    known = facts(thing=a_thing(zone="b7", Zone="c"))
    statements = [
        allow("iot:Publish", A + "topic/${iot:Connection.Thing.Attributes[zone]}/" + THING),
        allow("iot:Connect", "*", Condition={"Bool": {"iot:Connection.Thing.IsAttached": "true"}}),
    ]
    assert outcome(statements, "iot:Publish", A + "topic/b7/pump-1", known) is ALLOWED
    assert outcome(statements, "iot:Publish", A + "topic/c/pump-1", known) is SILENT
    assert outcome(statements, "iot:Connect", A + "client/pump-1", known) is ALLOWED


@pytest.mark.parametrize("client_id", ["#", "+", "a/b"])
def test_a_client_id_with_wildcards_widens_nothing(client_id: str) -> None:
    statements = [allow("iot:*", [A + f"topicfilter/{ME}", A + f"client/{ME}"])]
    known = facts(client_id)
    assert outcome(statements, "iot:Subscribe", A + f"topicfilter/{client_id}", known) is SILENT
    assert outcome(statements, "iot:Connect", A + f"client/{client_id}", known) is ALLOWED
    statements = [allow("iot:*"), deny("iot:*", A + f"topic/{ME}")]
    assert outcome(statements, "iot:Publish", A + f"topic/{client_id}", known) is DENIED


@pytest.mark.parametrize("client_id", ["#", "+", "a/b"])
def test_a_client_id_with_wildcards_passes_no_denial(client_id: str) -> None:
    known, wanted = facts(client_id), f"{A}topicfilter/{client_id}/x"
    everything, mine = allow("iot:Subscribe"), f"{A}topicfilter/{ME}/*"
    assert outcome([everything, deny("iot:Subscribe", mine)], "iot:Subscribe", wanted, known) is DENIED
    assert outcome([everything, deny("iot:Subscribe", mine)], "iot:Subscribe", f"{A}topicfilter/q/x", known) is DENIED
    except_mine = {"Effect": "Deny", "Action": "iot:Subscribe", "NotResource": mine}
    assert outcome([everything, except_mine], "iot:Subscribe", wanted, known) is DENIED
    hidden = allow("iot:Subscribe", f"{A}*filter/{ME}/*")
    assert outcome([hidden], "iot:Subscribe", wanted, known) is SILENT


def test_an_ordinary_client_id_is_denied_its_own_and_nothing_else() -> None:
    statements = [allow("iot:Subscribe"), deny("iot:Subscribe", f"{A}topicfilter/{ME}/*")]
    assert outcome(statements, "iot:Subscribe", f"{A}topicfilter/pump-1/x") is DENIED
    assert outcome(statements, "iot:Subscribe", f"{A}topicfilter/pump-2/x") is ALLOWED


def test_an_answer_that_depends_on_the_time_is_not_kept() -> None:
    condition = {"DateLessThan": {"aws:CurrentTime": "2026-06-01T13:00:00Z"}}
    policy = parse_policy("p", document(allow("iot:Connect", "*", Condition=condition)))
    permissions = ConnectionPermissions([policy], facts())
    assert permissions.decide("iot:Connect", A + "client/x", NOON).is_allowed
    assert not permissions.decide("iot:Connect", A + "client/x", NOON + timedelta(hours=2)).is_allowed


def test_the_hint_names_what_decided() -> None:
    def hint(*statements: object) -> str:
        policy = parse_policy("p", document(*statements))
        return ConnectionPermissions([policy], facts()).decide("iot:Publish", A + "topic/x", NOON).hint

    assert hint(allow("iot:*"), deny("iot:Publish", Sid="NoPublish")) == "statement 2 (NoPublish) of policy p denies it"
    assert "not on this resource" in hint(allow("iot:Publish", A + "topic/y"))
    assert hint(allow("iot:Connect")) == "no statement of p allows it"
    assert (
        ConnectionPermissions([], facts()).decide("iot:Connect", "x", NOON).hint
        == "no policy is attached to the certificate"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"Version":"2012-10-17","Statement":[]}',
        '{"Version":"2020-01-01","Statement":{"Effect":"Allow","Action":"iot:*","Resource":"*"}}',
        document({"Effect": "Maybe", "Action": "iot:*", "Resource": "*"}),
        document({"Effect": "Allow", "Resource": "*"}),
        document({"Effect": "Allow", "Action": "iot:*"}),
        document({"Effect": "Allow", "Action": "iot:*", "NotAction": "iot:*", "Resource": "*"}),
        document({"Effect": "Allow", "Action": "s3:*", "Resource": "*"}),
        document({"Effect": "Allow", "Action": "iot:*", "Resource": "topic/x"}),
        document({"Effect": "Allow", "Action": "iot:*", "Resource": "*", "Principal": "*"}),
        document(allow("iot:*", "*", Condition={"StringSortOf": {"a": "b"}})),
        document(allow("iot:*", "*", Condition={"IpAddress": {"aws:SourceIp": "here"}})),
        document(allow("iot:*", "*", Condition={"StringEquals": {"a": [{}]}})),
        document(allow("iot:" + "a" * 2100)),
        "[" * 2000,
    ],
)
def test_a_document_that_cannot_be_trusted_is_malformed(text: str) -> None:
    with pytest.raises(PolicyMalformedError) as caught:
        parse_policy("p", text)
    assert caught.value.explain_fix().count("{") == 3


@pytest.mark.parametrize("action", ["iot:Connect\u200b", "iot:Connect\u00a0", "iot:Connect ", "iot:\u201cConnect"])
def test_a_new_policy_has_no_action_that_nobody_sees_to_fit_nothing(action: str) -> None:
    """A Deny of it would deny nothing."""
    text = document({"Effect": "Deny", "NotAction": [action], "Resource": "*"})
    parse_policy("stored", text)
    with pytest.raises(PolicyMalformedError, match="contains a character that is not allowed"):
        check_new("p", text)


@given(st.text("ab*?", max_size=12), st.text("ab", max_size=12))
def test_globs_match_like_the_obvious_and_slow_way(pattern: str, text: str) -> None:
    def slow(pattern: str, text: str) -> bool:
        if not pattern:
            return not text
        if pattern[0] == "*":
            return any(slow(pattern[1:], text[at:]) for at in range(len(text) + 1))
        return bool(text) and pattern[0] in ("?", text[0]) and slow(pattern[1:], text[1:])

    assert glob_of(pattern).matches(text) == slow(pattern, text)


@given(st.text(max_size=200))
def test_any_text_parses_or_is_malformed(text: str) -> None:
    with contextlib.suppress(PolicyMalformedError):
        parse_policy("p", text)


def test_a_policy_of_another_region_is_told_with_the_setting() -> None:
    elsewhere = allow("iot:Connect", "arn:aws:iot:ap-northeast-1:000000000000:client/pump-1")
    permissions = ConnectionPermissions([parse_policy("p", document(elsewhere))], facts())
    decision = permissions.decide("iot:Connect", "arn:aws:iot:us-east-1:000000000000:client/pump-1", NOON)
    assert not decision.is_allowed
    assert 'region = "ap-northeast-1"' in decision.hint
    assert "us-east-1" in decision.hint


@pytest.mark.parametrize("client_id", ["\1", "pump\1", "\2"])
def test_a_control_character_in_a_client_id_lifts_no_denial(client_id: str) -> None:
    everything = allow("iot:*")
    mine = A + f"topic/{ME}/*"
    others = {"Effect": "Deny", "Action": "iot:Publish", "NotResource": mine}
    assert outcome([everything, others], "iot:Publish", A + "topic/pump-2/x", facts(client_id)) is DENIED
    own = deny("iot:Publish", mine)
    assert outcome([everything, own], "iot:Publish", A + f"topic/{client_id}/x", facts(client_id)) is DENIED
    assert outcome([allow("iot:Publish", mine)], "iot:Publish", A + "topic/pump-2/x", facts(client_id)) is SILENT


def receiving(permissions: ConnectionPermissions, count: int) -> list[bool]:
    return [permissions.may_receive(f"t/{one}", f"{A}topic/t/{one}", NOON) for one in range(count)]


def test_a_connection_remembers_few_answers_however_many_it_asks_for() -> None:
    policy = parse_policy("p", document(allow("iot:*", A + "topic/t/${iot:ClientId}*")))
    permissions = ConnectionPermissions([policy], facts())
    receiving(permissions, 5000)
    for one in range(5000):
        permissions.decide("iot:Publish", f"{A}topic/t/{one}", NOON)
    assert len(permissions.receives) <= MAX_OF_ONE
    assert len(permissions._known) <= MAX_OF_ONE


def test_those_with_the_same_policies_remember_together_what_is_more(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = parse_policy("plain", document(allow("iot:Receive", A + "topic/t/*")))
    first, second = ConnectionPermissions([plain], facts()), ConnectionPermissions([plain], facts())
    assert receiving(first, 2000) == receiving(second, 2000) == [True] * 2000
    assert max(len(first.receives), len(second.receives)) <= MAX_OF_ONE
    monkeypatch.setattr(ConnectionPermissions, "judge", None)
    assert receiving(second, 2000) == [True] * 2000, "which is asked once"
    assert second._shared is first._shared
    receiving_all = first._shared
    assert receiving_all is not None
    assert len(receiving_all.receives) <= MAX_SHARED


def test_what_is_remembered_together_goes_with_the_last_that_has_it() -> None:
    other = parse_policy("other", document(allow("iot:Receive", A + "topic/t/*")))
    permissions = ConnectionPermissions([other], facts())
    assert (other,) in _SHARED
    del permissions
    assert (other,) not in _SHARED


THING, CN = "${iot:Connection.Thing.ThingName}", "${iot:Certificate.Subject.CommonName}"


@pytest.mark.parametrize(
    ("allowed", "is_of_one"),
    [
        ({"Action": "iot:Connect", "Resource": f"{A}client/{THING}"}, True),
        (
            {
                "Action": "iot:*",
                "Resource": [f"{A}client/{THING}", f"{A}topic/${{iot:Certificate.Subject.CommonName}}/*"],
            },
            True,
        ),
        ({"Action": "iot:*", "Resource": [f"{A}client/{THING}", f"{A}topic/all"]}, False),
        ({"Action": "iot:Connect", "Resource": f"{A}client/${{iot:ClientId}}"}, False),
        ({"Action": "iot:*", "Resource": "*"}, False),
        ({"Action": "iot:*", "NotResource": f"{A}topic/{THING}"}, False),
    ],
)
def test_a_policy_is_of_one_device_where_each_resource_names_it(allowed: dict[str, Any], is_of_one: bool) -> None:
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **allowed}]}
    assert parse_policy("p", json.dumps(document)).is_of_one_device is is_of_one
