"""Webhooks: receivers, their positions, and delivery.

One worker at a time delivers to a receiver, by a lease and in a separate task, so a slow or unavailable receiver delays
no other. Its position in the audit log is stored after each accepted delivery. Delivery is at least once and in order,
also across a restart or the loss of a worker.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.errors import BirthmarkError, ConflictError, InvalidRequestError, NotFoundError
from birthmark.events import store
from birthmark.events.event_grid import (
    HubOf,
    grid_body,
    grid_event_of,
    grid_headers,
    is_validated,
    validation_event,
)
from birthmark.events.event_types import KINDS, PREFIX, event_of, type_of
from birthmark.events.merged_event_feed import Feed, parse_place, place_of
from birthmark.events.model import DeadLetters, EventForm, OperationEvent, Webhook
from birthmark.events.webhook_url_redaction import host_only, without_secrets
from birthmark.outbound.http_client import EXAMPLE, HttpSender, NotAnsweredError, RefusedByReceiverError, check_url
from birthmark.outbound.mail_config import BEGIN, MailNotConfiguredError, MailSender, address_of
from birthmark.outbound.webhook_signature import SECRET_BYTES, headers_of, secret_of
from birthmark.store import Changes, Database, to_micros
from birthmark.store.pagination import every
from birthmark.supervised_tasks import cancel_and_wait, start_supervised
from birthmark.untrusted_json_and_text import printable

_RAISED, _OVER = "birthmark.alert.raised", "birthmark.alert.over"
_MAX_SUBJECT = 120
MAX_PATTERN_CHARS = 128


def letter(events: Sequence[Mapping[str, Any]], source: str) -> tuple[str, str]:
    """Return the subject and text of an email about events."""
    parts = [_part(one) for one in events]
    more = f" (and {len(events) - 1} more)" if len(events) > 1 else ""
    subject = printable(f"{_heading(_first(events))}{more} - {source}")
    return subject[:_MAX_SUBJECT], "\n\n".join(parts) + f"\n\n-- \n{printable(source)}\n"


def _first(events: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the most severe event: a critical alert, then any alert, then the first event."""
    critical = [one for one in events if one["type"] == _RAISED and one["data"].get("severity") == "critical"]
    raised = [one for one in events if one["type"] == _RAISED]
    return (critical or raised or events)[0]


def _heading(event: Mapping[str, Any]) -> str:
    data = event["data"]
    if event["type"] == _RAISED:
        return f"{str(data.get('severity', '')).upper()}: {data.get('says', event['subject'])}"
    if event["type"] == _OVER:
        return f"Resolved: {data.get('says', event['subject'])}"
    return f"{event['type']} {event['subject']}"


def _part(event: Mapping[str, Any]) -> str:
    data = event["data"]
    lines = [_heading(event), f"  at     {event['time'][:19]} UTC"]
    if event["type"] in {_RAISED, _OVER}:
        lines.append(f"  since  {str(data.get('since', ''))[:19]} UTC")
        lines.append(f"  rule   {data.get('rule', '')}, {event['subject']}")
        if data.get("examples"):
            lines.append(f"  such as {', '.join(map(str, data['examples']))}")
        if data.get("fix") and event["type"] == _RAISED:
            lines.append(f"  next   {data['fix']}")
    else:
        lines.append(f"  by     {data.get('actor', '')}")
    return "\n".join(printable(line) for line in lines)


log = logging.getLogger(__name__)

BATCH = "application/cloudevents-batch+json"
_MOST_AT_ONCE, _MOST_HOOKS, _MOST_DEAD = 100, 100, 1000
_REPLAYED_AT_ONCE = 10
_LOOK_EVERY_S, _CLAIM = 1.0, timedelta(seconds=30)
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(seconds=1), timedelta(minutes=5)
_TRIES = 5
_PATIENCE_S = 1.0
_LATER = {401, 403, 404, 408, 425, 429}
"""HTTP statuses of a receiver that is not set up yet, or busy, and may accept a retry (RFC 9110, 6585, 8470)."""
_MAX_PROBLEM = 300


class WebhookMissingError(NotFoundError):
    """The webhook does not exist."""

    code = "feed.webhook_missing"
    message = "Webhook {name} does not exist"
    fix = "List webhooks: `birthmark webhook ls`"
    name: str


class WebhookExistsError(ConflictError):
    """A webhook with this name exists already."""

    code = "feed.webhook_exists"
    message = "Webhook {name} already exists"
    fix = "Choose another name. List webhooks: `birthmark webhook ls`"
    name: str


class TypesInvalidError(InvalidRequestError):
    """The event type pattern is not valid."""

    code = "feed.types_invalid"
    cause = "{pattern} matches no event type."
    fix = "Use an event type from docs/howto/events.md, or a pattern: `{command}`"
    command: str = "birthmark webhook create devices https://hooks.example.com/birthmark --type 'birthmark.device.*'"
    pattern: str


class HandshakeFailedError(InvalidRequestError):
    """The receiver did not validate the subscription."""

    code = "feed.handshake_failed"
    cause = "The receiver {host} did not return the validation code: {reason}."
    fix = (
        'Have the receiver respond to the SubscriptionValidation event with {{"validationResponse": CODE}} in time. '
        "For a receiver of CloudEvents, which needs no handshake: `birthmark webhook create {name} {example}`"
    )
    example: str = EXAMPLE
    host: str
    name: str
    reason: str


class EventFormError(InvalidRequestError):
    """The form of events does not fit the receiver."""

    code = "feed.form_invalid"
    cause = "Email has no Event Grid form: the receiver is an HTTPS URL."
    fix = "Use the receiver's URL: `birthmark webhook create {name} {example}`"
    example: str = EXAMPLE
    name: str


class TooManyWebhooksError(ConflictError):
    """The server has the maximum number of webhooks."""

    code = "feed.too_many_webhooks"
    cause = "The server has reached the limit of {count} webhooks."
    fix = "Delete an unused webhook. List webhooks: `birthmark webhook ls`"
    for_a_person = "only an administrator knows which webhooks are unused"
    count: int


@dataclass(slots=True)
class Webhooks:
    """All webhooks. `source` identifies this server; `me` is this worker."""

    database: Database = field(repr=False)
    clock: Clock = field(repr=False)
    entropy: Entropy = field(repr=False)
    sender: HttpSender = field(repr=False)
    mailer: MailSender | None = field(default=None, repr=False, kw_only=True)
    source: str = "birthmark"
    me: str = "main"
    hub_of: HubOf = field(default=str, repr=False, kw_only=True)
    """Returns the name of the hub with this host name."""
    _telling: dict[str, asyncio.Task[None]] = field(default_factory=dict, init=False, repr=False)
    _has_claimed: bool = field(default=False, init=False, repr=False)

    # User operations

    async def all(self) -> Sequence[Webhook]:
        """Return every webhook, by name."""
        return [store.WEBHOOKS.of(row) for row in await every(self.database, store.HOOKS_PAGE, "name")]

    async def get(self, name: str) -> Webhook:
        """Return a webhook. Raise `WebhookMissingError`."""
        row = await self.database.one(store.GET, name=name)
        if row is None:
            raise WebhookMissingError(name=name[:64])
        return store.WEBHOOKS.of(row)

    async def create(
        self, name: str, url: str, types: Sequence[str], *, actor: str, form: EventForm = EventForm.CLOUDEVENTS
    ) -> Webhook:
        """Create a webhook for future events. Its secret is returned only here.

        Raise `WebhookExistsError`, `TypesInvalidError`, `UrlInvalidError`, `TooManyWebhooksError`; for Event Grid's
        form also `HandshakeFailedError`, `EventFormError`.
        """
        if form is EventForm.EVENTGRID and url.startswith(BEGIN):
            raise EventFormError(name=name)
        self._check(url)
        if len(await self.all()) >= _MOST_HOOKS:
            raise TooManyWebhooksError(count=_MOST_HOOKS)
        for pattern in types:
            check_type(pattern)
        exists = WebhookExistsError(name=name)
        if await self.database.one(store.GET, name=name) is not None:
            raise exists
        if form is EventForm.EVENTGRID:
            await self._shake_hands(name, url)
        now, secret = self.clock.now(), secret_of(self.entropy.token(SECRET_BYTES))
        place = place_of(await Feed(self.database).end())
        hook = Webhook(name, url, tuple(types) or ("*",), secret, place, now, next_at=now, owned_until=now)
        hook = replace(hook, form=form)
        changes = Changes().run(store.ADD, expect=1, otherwise=exists, **store.WEBHOOKS.row(hook))
        told = {"url": host_only(url), "types": list(hook.types), "form": form.value}
        await self.database.commit(changes.audit(actor, "webhook.create", name, **told))
        return hook

    async def _shake_hands(self, name: str, url: str) -> None:
        """Prove that a receiver expects the events. Raise `HandshakeFailedError`."""
        event_id, code = (self.entropy.token(16).hex() for _ in range(2))
        event = validation_event(event_id, code, self.source, self.clock.now())
        headers = {"user-agent": "birthmark", **grid_headers(name, "SubscriptionValidation", 0)}
        host = host_only(url)
        try:
            answer = await self.sender.post(url, headers, grid_body([event]))
        except BirthmarkError as error:
            raise HandshakeFailedError(host=host, name=name, reason=error.explain_cause()) from error
        if not answer.is_good or not is_validated(answer.text, code):
            raise HandshakeFailedError(host=host, name=name, reason=f"it responded with status {answer.status}")

    async def remove(self, name: str, *, actor: str) -> None:
        """Remove a webhook with its dead letters. Raise `WebhookMissingError`."""
        changes = Changes().run(store.REMOVE, expect=1, otherwise=WebhookMissingError(name=name[:64]), name=name)
        changes.run(store.REMOVE_ALL_DEAD, hook=name)
        await self.database.commit(changes.audit(actor, "webhook.remove", name))

    async def rotate(self, name: str, *, actor: str) -> str:
        """Rotate the secret and return the new one.

        Deliveries also carry a signature by the former secret until the next rotation.
        """
        hook, made = await self.get(name), secret_of(self.entropy.token(SECRET_BYTES))
        row, was = store.WEBHOOKS.row(replace(hook, secret=made, former=hook.secret)), store.WEBHOOKS.row(hook)
        missing = WebhookMissingError(name=name)
        changes = Changes().run(
            store.SET_SECRET,
            expect=1,
            otherwise=missing,
            key_name=name,
            key_secret=was["secret"],
            secret=row["secret"],
            former=row["former"],
        )
        await self.database.commit(changes.audit(actor, "webhook.rotate", name))
        return made

    async def pause(self, name: str, *, is_paused: bool, actor: str) -> Webhook:
        """Pause deliveries, or resume them at once. Raise `WebhookMissingError`."""
        changes = Changes().run(
            store.SET_PAUSED,
            expect=1,
            otherwise=WebhookMissingError(name=name[:64]),
            key_name=name,
            is_paused=int(is_paused),
            next_at=to_micros(self.clock.now()),
        )
        await self.database.commit(changes.audit(actor, "webhook.pause" if is_paused else "webhook.resume", name))
        return await self.get(name)

    async def dead(self, name: str, limit: int = 100) -> Sequence[DeadLetters]:
        """Return the dead letters, oldest first. Raise `WebhookMissingError`."""
        await self.get(name)
        return [store.DEAD.of(row) for row in await self.database.all(store.DEAD_OF, hook=name, limit=limit)]

    async def _count_dead(self, name: str) -> int:
        row = await self.database.one(store.COUNT_DEAD_OF, hook=name)
        return 0 if row is None else int(row["count"])

    async def replay(self, name: str, *, actor: str) -> int:
        """Resend dead letters, oldest first, until one is rejected; return how many were accepted.

        Raise `NotAnsweredError`, `WebhookMissingError`.
        """
        hook, done = await self.get(name), 0
        while found := await self.dead(name, _REPLAYED_AT_ONCE):
            for one in found:
                await self._send(hook, one.id, one.body)
                changes = Changes().run(store.REMOVE_DEAD, id=one.id)
                await self.database.commit(changes.audit(actor, "webhook.replay", name, id=one.id))
                done += one.count
        return done

    # Worker operations

    async def run_delivery_loop(self) -> None:
        """Deliver to every receiver that no other worker has leased, in a loop that never returns."""
        try:
            while True:
                hooks = {hook.name: hook for hook in await self.all()}
                for name in self._telling.keys() - {name for name, hook in hooks.items() if not hook.is_paused}:
                    await cancel_and_wait(self._telling.pop(name))
                for name, hook in hooks.items():
                    if name not in self._telling and not hook.is_paused and await self._claim(name):
                        self._telling[name] = start_supervised(f"the webhook {name}", partial(self._keep, name))
                await asyncio.sleep(_LOOK_EVERY_S)
        finally:
            telling, self._telling = self._telling, {}
            await cancel_and_wait(*telling.values())

    async def release_leases(self) -> None:
        """Release this worker's leases for other workers; if the write fails, the leases expire by themselves."""
        if not self._has_claimed:
            return
        changes = Changes().run(store.LET_GO, key_owner=self.me, owned_until=to_micros(self.clock.now()))
        with contextlib.suppress(BirthmarkError, TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                await self.database.commit(changes)

    async def _claim(self, name: str) -> bool:
        """Acquire or extend the lease of a receiver, and return whether this worker holds it."""
        now = self.clock.now()
        taken = ConflictError()
        changes = Changes().run(
            store.CLAIM,
            expect=1,
            otherwise=taken,
            key_name=name,
            key_owner=self.me,
            key_now=to_micros(now),
            owner=self.me,
            owned_until=to_micros(now + _CLAIM),
        )
        try:
            await self.database.commit(changes)
        except ConflictError:
            return False
        self._has_claimed = True
        return True

    async def _keep(self, name: str) -> None:
        while True:
            hook = await self.get(name)
            if hook.owner != self.me or hook.owned_until - self.clock.now() < _CLAIM / 2:
                if not await self._claim(name):
                    return
                continue
            if hook.is_paused:
                return
            wait = (hook.next_at - self.clock.now()).total_seconds()
            if wait > 0:
                await asyncio.sleep(min(wait, _LOOK_EVERY_S))
            elif not await self._deliver(hook):
                await asyncio.sleep(_LOOK_EVERY_S)

    async def _deliver(self, hook: Webhook) -> bool:
        """Deliver the next events to a receiver, and return whether there were any."""
        found = await Feed(self.database).after(parse_place(hook.places), _MOST_AT_ONCE)
        if not found:
            return False
        place = place_of(found[-1][1])
        wanted = (one for one, _ in found if self._is_wanted(hook, one))
        told = [event for one in wanted if (event := self._event_for(hook, one)) is not None]
        if not told:
            await self._moved(hook, replace(hook, places=place, tries=0, problem="", failed_since=None))
            return True
        body = json.dumps(told, separators=(",", ":")).encode()
        message = f"{hook.name}-{told[0]['id']}-{told[-1]['id']}".replace("/", ".")
        try:
            await self._send(hook, message, body)
        except BirthmarkError as error:
            await self._failed(
                hook, place, DeadLetters(message, hook.name, self.clock.now(), len(told), body, ""), error
            )
            return True
        now = self.clock.now()
        await self._moved(hook, replace(hook, places=place, tries=0, next_at=now, problem="", failed_since=None))
        return True

    def _event_for(self, hook: Webhook, event: OperationEvent) -> Mapping[str, Any] | None:
        """Return an event in the form of a webhook; None if it has no equivalent there."""
        is_grid = hook.form is EventForm.EVENTGRID
        return grid_event_of(event, self.hub_of) if is_grid else event_of(event, self.source)

    def _check(self, url: str) -> None:
        """Raise the reason why the URL cannot receive deliveries."""
        if not url.startswith(BEGIN):
            self.sender.check(url)
            return
        address_of(url)
        if self.mailer is None:
            raise MailNotConfiguredError

    async def _send(self, hook: Webhook, message: str, body: bytes) -> None:
        if hook.url.startswith(BEGIN):
            if self.mailer is None:
                raise MailNotConfiguredError
            subject, text = letter(json.loads(body), self.source)
            await self.mailer.send(address_of(hook.url), subject, text, message)
            return
        secrets = [hook.secret, hook.former] if hook.former else [hook.secret]
        at_s = int(self.clock.now().timestamp())
        headers = {"content-type": BATCH, "user-agent": "birthmark", **headers_of(message, at_s, body, secrets)}
        if hook.form is EventForm.EVENTGRID:
            headers |= grid_headers(hook.name, "Notification", hook.tries)
        answer = await self.sender.post(hook.url, headers, body)
        if not answer.is_good:
            host, text = check_url(hook.url, allows_plain=True), without_secrets(answer.text, hook.url)
            said = f"{answer.status} {text[:100]}".rstrip()
            is_refused = answer.status in range(400, 500) and answer.status not in _LATER
            raise (RefusedByReceiverError if is_refused else NotAnsweredError)(host=host, reason=said)

    async def _failed(self, hook: Webhook, place: str, sent: DeadLetters, error: BirthmarkError) -> None:
        """Schedule a retry with a growing pause; convert events that are rejected repeatedly to dead letters.

        An email to an invalid address becomes a dead letter at once. Retries to an unavailable receiver, or one that
        denies access, have no time limit, because its events stay in the audit log.
        """
        now = self.clock.now()
        pause = min(_FIRST_PAUSE * 2 ** min(hook.tries, 20), _LONGEST_PAUSE)
        problem = error.explain_cause()[:_MAX_PROBLEM]
        later = replace(hook, tries=hook.tries + 1, next_at=now + pause, problem=problem)
        later = replace(later, failed_since=hook.failed_since or now)
        if problem != hook.problem:
            log.warning("webhook.not_taken", extra={"webhook": hook.name, "code": error.code, "reason": problem})
        is_refused = isinstance(error, RefusedByReceiverError) and (error.is_final or later.tries >= _TRIES)
        if not is_refused:
            await self._moved(hook, later)
            return
        if await self._count_dead(hook.name) >= _MOST_DEAD:
            await self.pause(hook.name, is_paused=True, actor="server")
            return
        aside = replace(sent, id=f"{sent.id}-{to_micros(now)}", problem=problem)
        changes = Changes().run(store.ADD_DEAD, **store.DEAD.row(aside))
        changes.audit("server", "webhook.put_aside", hook.name, events=aside.count, problem=problem)
        await self._moved(hook, replace(later, places=place, tries=0, next_at=now), changes)

    async def _moved(self, was: Webhook, now: Webhook, changes: Changes | None = None) -> None:
        row, before = store.WEBHOOKS.row(now), store.WEBHOOKS.row(was)
        moving = (changes or Changes()).run(
            store.MOVED,
            expect=1,
            otherwise=ConflictError(),
            key_name=was.name,
            key_places=before["places"],
            key_owner=self.me,
            **{name: row[name] for name in ("places", "tries", "next_at", "failed_since", "problem")},
        )
        await self.database.commit(moving)

    def _is_wanted(self, hook: Webhook, event: OperationEvent) -> bool:
        if event.action.startswith("webhook."):  # avoids an endless loop
            return False
        kind = type_of(event.action, event.detail)
        return any(fnmatchcase(kind, pattern) for pattern in hook.types)


def check_type(pattern: str, **facts: str) -> None:
    """Raise `TypesInvalidError` if a pattern matches no event type."""
    is_one = len(pattern) <= MAX_PATTERN_CHARS and pattern.startswith(PREFIX)
    if pattern != "*" and not (is_one and any(fnmatchcase(kind.type, pattern) for kind in KINDS)):
        raise TypesInvalidError(pattern=pattern[:64], **facts)
