"""Tags of thing types, thing groups, policies, CA certificates and other taggable resources."""

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from birthmark.awsiot.store import tags as store
from birthmark.errors import InvalidRequestError, PolicyError
from birthmark.store import Changes, Database, Statement, retry_on_conflict
from birthmark.store.pagination import Page, page_of

MAX_TAGS, MAX_KEY, MAX_VALUE = 50, 128, 256
_KEY = re.compile(rf"[\w\s.:/=+@-]{{1,{MAX_KEY}}}")
_VALUE = re.compile(rf"[\w\s.:/=+@-]{{0,{MAX_VALUE}}}")
_RESERVED = "aws:"
Tags = Mapping[str, str]
NO_TAGS: Tags = {}


class TagInvalidError(InvalidRequestError):
    """The tag's key or value is not valid."""

    code = "awsiot.tag_invalid"
    message = "The tag is not valid: {detail}"
    fix = (
        "Use unique keys of 1 to 128 characters that do not begin with aws:, and values of up to 256 characters. "
        "Keys and values can contain letters, digits, spaces and the symbols _ . : / = + - @ only. To show the "
        "format: `{command}`"
    )
    command: str = "?"
    detail: str


class TooManyTagsError(PolicyError):
    """The resource would have more than 50 tags."""

    code = "awsiot.tag_limit"
    message = "{name} would have {count} tags; the limit is 50"
    fix = (
        "Remove tags from the resource. To print the parameters of the command: `aws iot untag-resource "
        "--generate-cli-skeleton`"
    )
    count: int
    name: str


@dataclass(frozen=True, slots=True)
class TaggableResource:
    """A taggable resource kind.

    `get` raises if the resource does not exist; a commit with `is_there` fails in that case.
    """

    get: Callable[[str], Awaitable[object]]
    is_there: Statement
    key: str = "key_name"


def parse_tags(name: str, given: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the tags of a resource. Raise `TagInvalidError`, `TooManyTagsError`."""
    found: dict[str, str] = {}
    for key, value in given:
        if _KEY.fullmatch(key) is None or key.lower().startswith(_RESERVED):
            raise TagInvalidError(detail=f"the key {key[:128]!r}")
        if _VALUE.fullmatch(value) is None:
            raise TagInvalidError(detail=f"the value of {key!r}")
        if key in found:
            raise TagInvalidError(detail=f"the key {key!r} occurs twice")
        found[key] = value
    _check_room(name, found)
    return found


def written(kind: str, name: str, tags: Tags) -> Changes:
    """Return the tag writes of a commit that creates a resource."""
    if not tags:
        return Changes()
    return Changes().run(store.PUT, kind=kind, name=name, tags=_text(tags), revision=1)


def tag_deletes(kind: str, name: str) -> Changes:
    """Return the tag deletes of a commit that deletes a resource; they run after the resource's own delete."""
    return Changes().run(store.DROP, kind=kind, name=name)


async def load_tags(database: Database, kind: str, name: str) -> Tags:
    """Return the stored tags of a resource; the resource itself may be missing."""
    row = await database.one(store.GET, kind=kind, name=name)
    return NO_TAGS if row is None else json.loads(row["tags"])


async def has_same_tags(database: Database, kind: str, name: str, tags: Tags) -> bool:
    """Return whether a resource that is created again has the requested tags.

    An empty request always matches.
    """
    return not tags or await load_tags(database, kind, name) == tags


class TagWriter:
    """Reads and changes tags; `carriers` maps the kind in an ARN to its taggable resource."""

    def __init__(self, database: Database, sinks: Mapping[str, TaggableResource]) -> None:
        self._database = database
        self.sinks = sinks

    async def of(self, kind: str, name: str) -> Tags:
        """Return the tags of a resource. Raise `NotFoundError`."""
        await self.sinks[kind].get(name)
        return await load_tags(self._database, kind, name)

    async def page(self, kind: str, name: str, after: str, size: int) -> Page[tuple[str, str]]:
        """Return tags in order of key."""
        found = sorted(item for item in (await self.of(kind, name)).items() if item[0] > after)[: size + 1]
        return page_of(found, size, [key for key, _ in found])

    async def add(self, kind: str, name: str, tags: Tags, *, actor: str) -> None:
        """Add tags to a resource; replace tags with the same key. Raise `TooManyTagsError`."""
        await self._change(kind, name, lambda known: {**known, **tags}, "awsiot.tag", actor)

    async def remove(self, kind: str, name: str, keys: Sequence[str], *, actor: str) -> None:
        """Remove tags from a resource; keys that are not set are ignored."""
        gone = frozenset(keys)
        await self._change(
            kind, name, lambda known: {key: known[key] for key in known if key not in gone}, "awsiot.untag", actor
        )

    async def _read(self, kind: str, name: str) -> tuple[Tags, int]:
        row = await self._database.one(store.GET, kind=kind, name=name)
        return ({}, 0) if row is None else (json.loads(row["tags"]), row["revision"])

    async def _change(self, kind: str, name: str, decide: Callable[[Tags], Tags], action: str, actor: str) -> None:
        sink = self.sinks[kind]

        async def change() -> None:
            await sink.get(name)
            known, revision = await self._read(kind, name)
            made = decide(known)
            _check_room(name, made)
            values: dict[str, Any] = {"tags": _text(made), "revision": revision + 1}
            named: dict[str, Any] = {sink.key: name}
            changes = Changes().run(sink.is_there, expect=1, **named)
            if revision:
                seen: dict[str, Any] = {"key_kind": kind, "key_name": name, "key_revision": revision}
                changes.run(store.CHANGE, expect=1, **values, **seen)
            else:
                changes.run(store.ADD, expect=1, kind=kind, name=name, **values)
            await self._database.commit(changes.audit(actor, action, name, kind=kind, tags=dict(made)))

        await retry_on_conflict(change, attempts=8)


def _check_room(name: str, tags: Tags) -> None:
    if len(tags) > MAX_TAGS:
        raise TooManyTagsError(name=name, count=len(tags))


def _text(tags: Tags) -> str:
    return json.dumps(dict(tags), sort_keys=True, ensure_ascii=False)
