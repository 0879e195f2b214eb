"""What is asked by a publish to a reserved topic: a table of services, each answering in its own way.

The topic says which service, thing and verb; whoever may publish to the topic may ask. Answers are ordinary publishes,
so who gets them is decided by subscriptions and policies, like everything else.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from birthmark.awsiot.errors import shadow_rejection
from birthmark.awsiot.model import parse_shadow_name, parse_thing_name
from birthmark.awsiot.rules.reserved import Service, request_of
from birthmark.awsiot.rules.shadows import ShadowMissingError
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.wire import shadows as wire
from birthmark.errors import BirthmarkError

Note = Callable[[BirthmarkError], object]
"""Files a refusal that the service itself tells whoever asked."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: its topic, the names in it, what was sent."""

    topic: str
    names: Mapping[str, str | None]
    payload: bytes
    note: Note


Handler = Callable[[Asked], Awaitable[None]]


class Reserved:
    """The services behind reserved topics."""

    def __init__(self, aws: AwsIot) -> None:
        self._shadows = aws.shadows
        self._handlers: Mapping[Service, Handler] = {Service.SHADOW: self._shadow}

    async def ask(self, topic: str, payload: bytes, note: Note) -> None:
        """Let the service of a topic do what is asked; when this returns, it is done and answered."""
        if (found := request_of(topic)) is not None:
            service, names = found
            await self._handlers[service](Asked(topic, names, payload, note))

    async def _shadow(self, asked: Asked) -> None:
        names, token = asked.names, None
        try:
            thing = parse_thing_name(names["thing"] or "")
            name = "" if names["name"] is None else parse_shadow_name(thing, names["name"])
            request = wire.parse_request(asked.payload)
            token = request.token
            match names["verb"]:
                case "update":
                    await self._shadows.update(thing, name, request)
                case "delete":
                    await self._shadows.delete(thing, name, request)
                case _:
                    shadow = await self._shadows.get(thing, name)
                    body = wire.shadow_json(shadow, self._shadows.now(), token)
                    await self._shadows.tell(f"{asked.topic}/accepted", body)
        except BirthmarkError as error:
            error.add_facts(thing=names["thing"])
            if names["verb"] != "get" or not isinstance(error, ShadowMissingError):  # it asked whether there is one
                asked.note(error)
            body = wire.rejected_json(*shadow_rejection(error), self._shadows.now(), token)
            await self._shadows.tell(f"{asked.topic}/rejected", body)
