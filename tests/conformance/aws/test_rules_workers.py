"""Topic rules where two workers serve as one, on PostgreSQL, and where one process is killed again and again."""

import json
import random
import signal

import pytest

from support.aws.clients import Account, until
from support.server.readiness import until_workers_are_ready
from support.server.servers import RunningServer
from support.server.workers_of import below, hit

pytestmark = [pytest.mark.system, pytest.mark.serve(workers=2)]
ROLE = "arn:aws:iam::000000000000:role/rules"


def a_rule(account: Account, name: str, sql: str, topic: str) -> None:
    republish = {"republish": {"topic": topic, "roleArn": ROLE, "qos": 1}}
    account.iot.create_topic_rule(
        ruleName=name, topicRulePayload={"sql": sql, "actions": [republish], "awsIotSqlVersion": "2016-03-23"}
    )


def test_whichever_worker_is_published_to_and_listened_at_each_message_comes_once(account: Account) -> None:
    a_rule(account, "either", "SELECT n FROM 'either/+'", "seen/${topic(2)}")
    listeners = account.subscribed("seen/#", 4)
    for number, client in enumerate(account.client() for _ in range(4)):
        client.publish(f"either/{number}", json.dumps({"n": number}), 1)
    expected = sorted((f"seen/{number}", f'{{"n":{number}}}') for number in range(4))
    for listener in listeners:
        until(lambda listener=listener: sorted(listener.got) == expected, listener.got)  # type: ignore[misc]


def test_a_rule_that_is_changed_holds_at_every_worker_when_that_is_answered(account: Account) -> None:
    a_rule(account, "changes", "SELECT * FROM 'before'", "heard")
    (listener,) = account.subscribed("heard", 1)
    clients = [account.client() for _ in range(4)]
    payload = {"sql": "SELECT * FROM 'after'", "actions": [{"republish": {"topic": "heard", "roleArn": ROLE}}]}
    account.iot.replace_topic_rule(ruleName="changes", topicRulePayload=payload)
    for number, client in enumerate(clients):
        client.publish("before", str(number), 1)
        client.publish("after", str(number), 1)
    until(lambda: len(listener.got) >= 4, listener.got)
    assert sorted(listener.got) == [("heard", str(number)) for number in range(4)]


def test_every_message_is_seen_though_workers_are_killed(server: RunningServer, account: Account) -> None:
    a_rule(account, "survives", "SELECT n FROM 'in'", "out")
    listener = account.client(clean=False)
    listener.reconnect_delay_set(1, 1)
    listener.subscribe("out", 1)
    device = account.client(clean=False)
    device.reconnect_delay_set(1, 1)
    device.max_queued_messages_set(0)
    dice, told = random.Random(7), []
    for number in range(300):
        told.append(device.publish("in", json.dumps({"n": number}), 1))
        if number in {60, 160}:
            hit(below(server)[f"worker {dice.choice((1, 2))}"], signal.SIGKILL)
            until_workers_are_ready(server)
    for one in told:
        one.wait_for_publish(60)
        assert one.is_published()

    def seen() -> set[int]:
        return {json.loads(payload)["n"] for _, payload in listener.got}

    until(lambda: seen() == set(range(300)), lambda: set(range(300)) - seen(), seconds=60)
