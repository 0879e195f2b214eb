"""Every event, request and answer of every room can travel: tagged by its room, and with fields that JSON has."""

from collections import Counter
from typing import Any

import msgspec
import pytest
from test_errors import load_everything

from birthmark.bus import BusRequest, Reply
from birthmark.store import Event

EARLIER_NAMES = {"iam": "people"}
"""Tags are stored and sent between versions, so they keep the name that the package had."""


def kinds() -> list[type[msgspec.Struct]]:
    load_everything()
    found: list[type[msgspec.Struct]] = []
    waiting: list[type[msgspec.Struct]] = [Event, BusRequest, Reply]
    while waiting:
        children = [one for one in waiting.pop().__subclasses__() if one.__module__.startswith("birthmark.")]
        found += children
        waiting += children
    return found


def tag_of(kind: type[Any]) -> str:
    return str(kind.__struct_config__.tag)


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__qualname__)
def test_a_message_is_frozen_tagged_by_its_room_and_can_be_read_back(kind: type[Any]) -> None:
    package = kind.__module__.split(".")[1]
    assert tag_of(kind).startswith(f"{EARLIER_NAMES.get(package, package)}.")
    assert kind.__struct_config__.tag_field == "kind"
    assert kind.__struct_config__.frozen
    msgspec.json.Decoder(kind)


def test_no_two_kinds_share_a_tag() -> None:
    assert [tag for tag, count in Counter(map(tag_of, kinds())).items() if count > 1] == []


@pytest.mark.parametrize("kind", [one for one in kinds() if issubclass(one, Event)], ids=lambda kind: kind.__qualname__)
def test_an_event_says_what_it_is_about(kind: type[Event]) -> None:
    values: Any = {str: "x", bytes: b"x", bool: False, int: 0, tuple[str, ...]: ("x",)}
    made = kind(
        **{one.name: values[getattr(one.type, "__supertype__", one.type)] for one in msgspec.structs.fields(kind)}
    )
    assert made.entity
    assert msgspec.json.decode(msgspec.json.encode(made), type=kind) == made
