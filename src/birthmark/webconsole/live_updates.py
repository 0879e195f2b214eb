"""Live updates of open pages: one query of the feed per second for all pages.

A page receives the kinds and counts of new events, and then reloads its data. The stream contains no event data, so it
requires only a signed-in user. Users with read access to the server also receive rates.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from birthmark.auth.permission_statements import Right
from birthmark.errors import BirthmarkError, ThrottledError
from birthmark.events.event_types import PREFIX, type_of
from birthmark.events.merged_event_feed import parse_place
from birthmark.iam.browser_sessions import SessionEndedError
from birthmark.iam.model import SERVER
from birthmark.operator_api.api_router import SIGN_OF_LIFE_S, SSE
from birthmark.operator_api.page_api_client import SignedInUser
from birthmark.supervised_tasks import cancel_and_wait, start_supervised
from birthmark.webconsole.page_base import PageRenderer

LOOK_EVERY_S = 1.0
MOST, MOST_OF_ONE = 1000, 20
_WAIT_S = 5
CONNECTED_NOW = "connected"
EVERYTHING = "*"
"""Topic for more events than a query returns: every page reloads."""

_TOPICS: Mapping[str, str] = {
    "enrollment": "devices",
    "device": "devices",
    "certificate": "certificates",
    "ca": "certificates",
    "alert": "alerts",
}


class TooManyPagesError(ThrottledError):
    """The maximum number of pages that follow live updates is reached."""

    code = "console.too_many_pages"
    cause = "{count} pages of {who} receive live updates, which is the limit."
    fix = "Close unused pages. A page without live updates shows the state at the time the page was loaded."
    for_a_person = "the user must do this in the browser"
    count: int
    who: str


def topics_of(action: str, kind: str) -> set[str]:
    """Return the page topics that an event affects."""
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
    """A browser and its pending updates. For a slow browser updates are merged, not queued."""

    user: str
    sees_rates: bool
    rates: Mapping[str, float] = field(default_factory=dict)
    news: Counter[str] = field(default_factory=Counter)
    came: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Rates:
    """Rates per second of the counters, and current totals."""

    _before: Mapping[str, int] = field(default_factory=dict)
    _at: float = 0.0
    _was_moving: bool = True

    def after(self, counted: Mapping[str, int], now: float) -> tuple[Mapping[str, float], bool]:
        """Return the rates since the last update, and whether to send them, also when activity has stopped.

        A restarted worker counts from zero; its rates are never negative.
        """
        apart = now - self._at
        rates = {
            name: round(max(0, count - self._before.get(name, count)) / apart, 1)
            for name, count in counted.items()
            if name != CONNECTED_NOW
        }
        is_moving = any(rates.values()) or counted.get(CONNECTED_NOW) != self._before.get(CONNECTED_NOW)
        told = is_moving or self._was_moving
        self._before, self._at, self._was_moving = dict(counted), now, is_moving
        return {**rates, CONNECTED_NOW: counted.get(CONNECTED_NOW, 0)}, told


@dataclass(slots=True)
class LiveUpdates:
    """Live update stream of all pages of this process."""

    site: PageRenderer
    counted: Callable[[], Awaitable[Mapping[str, int]]]
    """Counters of all workers since their starts."""
    _listeners: set[_Listener] = field(default_factory=set, init=False)
    _looking: asyncio.Task[None] | None = field(default=None, init=False)
    _place: Mapping[str, int] | None = field(default=None, init=False)
    """Feed position of the last update; kept after a failed query, so that the next one continues there."""

    def routes(self) -> list[Route]:
        """Return the route of the stream."""
        return [self.site.route("/live", self.follow), self.site.route("/news", self.since)]

    async def since(self, request: Request, _who: SignedInUser) -> Response:
        """Return the events between the rendering of a page and the start of its stream. Raise `PlaceInvalidError`."""
        place = parse_place(request.query_params.get("after", ""))
        _, news = await self._news(place)
        return JSONResponse(news, headers={"cache-control": "no-store"})

    async def follow(self, request: Request, caller: SignedInUser) -> Response:
        """Stream updates until the browser disconnects, or its session ends."""
        user = caller.caller.user or "operator"
        own = sum(1 for one in self._listeners if one.user == user)
        if own >= MOST_OF_ONE or len(self._listeners) >= MOST:
            raise TooManyPagesError(count=own, who=user, retry_after_s=_WAIT_S)
        sees = caller.caller.rights.allow(Right.READ, SERVER)
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(self._told(request, _Listener(user, sees)), headers=headers, media_type=SSE)

    async def _told(self, request: Request, listener: _Listener) -> AsyncIterator[str]:
        self._listeners.add(listener)
        try:
            if self._place is None:  # before the first event: a page requests everything after it
                self._place = await self.site.feed.end()
            if self._looking is None:
                self._looking = start_supervised("live updates of pages", self._look)
            yield ":\n\n"
            silent = 0.0
            while True:
                try:
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await listener.came.wait()
                except TimeoutError:
                    silent += LOOK_EVERY_S
                try:
                    self.site.get_user(request)
                except SessionEndedError:
                    return
                if listener.came.is_set():
                    silent, news, listener.news = 0.0, listener.news, Counter()
                    listener.came.clear()
                    yield f"data: {json.dumps({'news': news, 'rates': listener.rates})}\n\n"
                elif silent >= SIGN_OF_LIFE_S:
                    silent = 0.0
                    yield ":\n\n"
        finally:
            self._listeners.discard(listener)
            if not self._listeners:
                looking, self._looking, self._place = self._looking, None, None
                await cancel_and_wait(looking)

    async def _look(self) -> None:
        """Notify all listeners once per second. Retry an unavailable database."""
        rates = Rates()
        loop = asyncio.get_running_loop()
        while True:
            try:
                self._place, news = await self._news(self._place)
                moving, is_moving = rates.after(await self.counted(), loop.time())
            except BirthmarkError:
                news, moving, is_moving = Counter(), {}, False
            for one in self._listeners:
                if news or (is_moving and one.sees_rates):
                    one.news.update(news)
                    one.rates = moving if one.sees_rates else {}
                    one.came.set()
            await asyncio.sleep(LOOK_EVERY_S)

    async def _news(self, place: Mapping[str, int] | None) -> tuple[Mapping[str, int], Counter[str]]:
        news: Counter[str] = Counter()
        end = await self.site.feed.end()
        if place is None or place == end:
            return end, news
        found = await self.site.feed.after(place)
        for happening, _ in found:
            news.update(topics_of(happening.action, type_of(happening.action, happening.detail)))
        behind = {**place, **found[-1][1]} if found else end
        if any(behind.get(chain, 0) < seq for chain, seq in end.items()):
            news[EVERYTHING] += 1
        return end, news
