"""What happens, for pages that are looked at: one look at the feed a second, however many look.

A page is told of which kinds something happened and how often, and asks for itself again; nothing that happened is
told by the stream, so that it needs no right but to be signed in.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from birthmark.background import ended
from birthmark.console.inside import Person
from birthmark.console.routing import SIGN_OF_LIFE_S, SSE
from birthmark.console.web.site import Site
from birthmark.errors import BirthmarkError, ThrottledError
from birthmark.feed.catalogue import PREFIX, type_of
from birthmark.feed.reading import Feed
from birthmark.people.sessions import SessionEndedError

LOOK_EVERY_S = 1.0
MOST, MOST_OF_ONE = 1000, 20
_WAIT_S = 5
EVERYTHING = "*"
"""More happened than is read at once: each page looks."""

_TOPICS: Mapping[str, str] = {
    "enrollment": "devices",
    "device": "devices",
    "certificate": "certificates",
    "ca": "certificates",
    "alert": "alerts",
}


class TooManyPagesError(ThrottledError):
    """So many pages follow what happens that no more may."""

    code = "console.too_many_pages"
    cause = "{count} browsers of {who} follow what happens here, and no more may."
    fix = "Close pages that nobody looks at; a page that does not follow shows what was when it was loaded."
    for_a_person = "it takes whoever sits at the browsers"
    count: int
    who: str


def topics_of(action: str, kind: str) -> set[str]:
    """Return what pages are about that show a happening."""
    if kind == f"{PREFIX}device.refused":
        return {"refusals", "devices"}
    about = _TOPICS.get(kind.removeprefix(PREFIX).partition(".")[0], "")
    found = {about} if about else set()
    if action.startswith("people.approval"):
        found.add("approvals")
    elif action.startswith("people."):
        found.add("people")
    if action not in {"device.connect", "device.disconnect", "device.lose"}:
        found.add("audit")
    return found


@dataclass(eq=False, slots=True)
class _Listener:
    """A browser: what it has not been told yet. Who reads slowly is told less often, and no more is kept for him."""

    user: str
    news: Counter[str] = field(default_factory=Counter)
    came: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Live:
    """The stream of all pages of this process."""

    site: Site
    feed: Feed
    _listeners: set[_Listener] = field(default_factory=set, init=False)
    _looking: asyncio.Task[None] | None = field(default=None, init=False)

    def routes(self) -> list[Route]:
        """Return its route."""
        return [self.site.route("/live", self.follow)]

    async def follow(self, request: Request, who: Person) -> Response:
        """Tell of what happens until the browser goes, or its session ends."""
        user = who.caller.user or "operator"
        own = sum(1 for one in self._listeners if one.user == user)
        if own >= MOST_OF_ONE or len(self._listeners) >= MOST:
            raise TooManyPagesError(count=own, who=user, retry_after_s=_WAIT_S)
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(self._told(request, _Listener(user)), headers=headers, media_type=SSE)

    async def _told(self, request: Request, listener: _Listener) -> AsyncIterator[str]:
        self._listeners.add(listener)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            yield ":\n\n"
            silent = 0.0
            while True:
                try:
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await listener.came.wait()
                except TimeoutError:
                    silent += LOOK_EVERY_S
                try:
                    self.site.who(request)
                except SessionEndedError:
                    return
                if listener.news:
                    silent, news, listener.news = 0.0, listener.news, Counter()
                    listener.came.clear()
                    yield f"data: {json.dumps(news)}\n\n"
                elif silent >= SIGN_OF_LIFE_S:
                    silent = 0.0
                    yield ":\n\n"
        finally:
            self._listeners.discard(listener)
            if not self._listeners:
                looking, self._looking = self._looking, None
                await ended(looking)

    async def _look(self) -> None:
        """Tell all who listen, once a second. A database that is away is asked again."""
        place = None
        while True:
            try:
                place, news = await self._news(place)
            except BirthmarkError:
                news = Counter()
            if news:
                for one in self._listeners:
                    one.news.update(news)
                    one.came.set()
            await asyncio.sleep(LOOK_EVERY_S)

    async def _news(self, place: Mapping[str, int] | None) -> tuple[Mapping[str, int], Counter[str]]:
        news: Counter[str] = Counter()
        end = await self.feed.end()
        if place is None or place == end:
            return end, news
        found = await self.feed.after(place)
        for happening, _ in found:
            news.update(topics_of(happening.action, type_of(happening.action, happening.detail)))
        behind = {**place, **found[-1][1]} if found else end
        if any(behind.get(chain, 0) < seq for chain, seq in end.items()):
            news[EVERYTHING] += 1
        return end, news
