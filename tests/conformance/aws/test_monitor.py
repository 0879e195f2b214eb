"""`birthmark aws monitor` beside mosquitto's client: no session, no subscription of its own, only looking on."""

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from support.aws.device import Enrolled
from support.server.servers import RunningServer, clean_environment
from support.server.watching import watching

pytestmark = pytest.mark.system


def publish(thing: Enrolled, topic: str, text: str, *more: str) -> None:
    settings = thing.files
    command = ["mosquitto_pub", "-h", settings["endpoint"], "-p", "8883", "--cafile", settings["ca"], "-q", "1"]
    command += ["--cert", settings["certificate"], "--key", settings["key"], "-i", thing.name, "-V", "311"]
    subprocess.run([*command, "-t", topic, "-m", text, *more], check=True, timeout=20, env=clean_environment())


def test_what_is_published_to_a_filter_is_shown(enroll: Callable[..., Enrolled], server: RunningServer) -> None:
    thing = enroll("looked-at")
    with (
        watching(server, "aws", "monitor", "look/+/at") as some,
        watching(server, "aws", "monitor", "look/+/at") as same,
        watching(server, "aws", "monitor", "$aws/events/presence/#") as presence,
        watching(server, "aws", "monitor", "#") as everything,
    ):
        publish(thing, "look/1/away", "no")
        publish(thing, "look/1/at", "yes")
        publish(thing, "look/2/at", "kept", "--retain")
        wanted = {"topic": "look/1/at", "body": "yes", "encoding": "utf-8", "qos": 1, "client": "looked-at"}
        for watcher in (some, same):
            row = watcher.row()
            assert wanted.items() <= row.items()
            assert watcher.row()["topic"] == "look/2/at"
        assert [row["topic"] for row in everything.rows(3)] == ["look/1/away", "look/1/at", "look/2/at"]
        assert presence.row()["topic"] == "$aws/events/presence/connected/looked-at"
        for watcher in (some, same, presence, everything):
            assert watcher.interrupt()[0] == 0


@pytest.mark.parametrize(
    ("wanted", "told"),
    [("a/#/b", "not a topic filter"), ("$share/g/a/#", "shared subscriptions are not supported here: use a/#")],
)
def test_what_is_no_filter_is_wrong_usage(server: RunningServer, wanted: str, told: str) -> None:
    done = server.attempt("aws", "monitor", wanted)
    assert done.returncode == 2
    assert told in done.stderr


def test_retained_messages_are_not_shown_again(
    enroll: Callable[..., Enrolled], server: RunningServer, iot: Any
) -> None:
    del iot
    thing = enroll("retainer")
    publish(thing, "kept/1", "old", "--retain")
    with watching(server, "aws", "monitor", "kept/1") as watcher:
        publish(thing, "kept/1", "new")
        assert watcher.row()["body"] == "new"
