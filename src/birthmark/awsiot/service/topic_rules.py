"""Topic rules: stored in the database, compiled in memory and applied to published messages."""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from birthmark.awsiot.domain_events import RuleChanged
from birthmark.awsiot.model import Account, TopicRule, parse_shadow_name, parse_thing_name
from birthmark.awsiot.rules import topic_rule_evaluation as rules
from birthmark.awsiot.rules.mqtt_protocol_limits import check_client_id, check_size
from birthmark.awsiot.rules.topic_rule_evaluation import PreparedRule
from birthmark.awsiot.service.base import AccountService
from birthmark.awsiot.service.rule_destinations import Destinations
from birthmark.awsiot.service.s3_buckets import is_bucket, is_key
from birthmark.awsiot.service.shadows import ShadowService
from birthmark.awsiot.service.tags import NO_TAGS, Tags, tag_deletes, written
from birthmark.awsiot.store import topic_rules_and_streams as store
from birthmark.awsiot.wire import BodyInvalidError
from birthmark.awsiot.wire.shadows import shadow_json
from birthmark.broker.database_stream import SqlStream
from birthmark.broker.keyed_lock import until_done
from birthmark.broker.model import BrokerMessage, Done
from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.errors import BirthmarkError, ChangedMeanwhileError, InvalidRequestError, NotFoundError
from birthmark.message_routing.delivery_model import Delivery, Sink
from birthmark.message_routing.engine import RuleEngine
from birthmark.message_routing.failed_delivery_queue import Queue
from birthmark.message_routing.rule_time_shares import DeferredMessage
from birthmark.message_routing.rules import sql
from birthmark.message_routing.write_ahead_log import LoggedMessage, WriteAheadLog
from birthmark.mqtt.topics import matches
from birthmark.net.fair_scheduler import wait_for_caller_turn
from birthmark.store import Changes, Database, retry_on_conflict
from birthmark.store.database import Heard
from birthmark.store.pagination import Page, page_of
from birthmark.supervised_tasks import Leads, always, note
from birthmark.untrusted_json_and_text import decode_json, readable

_NAME = re.compile(r"[a-zA-Z0-9_]{1,128}")
_MAX_SHADOWS, _MAX_TOLD = 8, 200
LED_BY: ContextVar[tuple[str, ...]] = ContextVar("rules that led to what a service is asked", default=())
"""Names of the rules that led to the current service call.

Messages that the call publishes, and basic ingest messages, carry this trail.
"""
Whose = Callable[[str], str]
"""Returns the principal of a connected client."""


@dataclass(frozen=True, slots=True)
class ListedRule:
    """A rule and its topic filter.

    The filter is None for a rule without topics, or if this release does not support its SQL.
    """

    rule: TopicRule
    filter: str | None

    @property
    def name(self) -> str:
        """The rule's name."""
        return self.rule.name


class _ActiveRule:
    """An active rule in the engine."""

    __slots__ = ("_rules", "ready")

    def __init__(self, topic_rules: "TopicRules", ready: PreparedRule) -> None:
        self._rules = topic_rules
        self.ready = ready

    @property
    def name(self) -> str:
        return self.ready.name

    async def decide(self, message: LoggedMessage) -> Sequence[Delivery]:
        """Return the deliveries for a message."""
        return (await self.apply(message)).letters

    async def apply(self, message: LoggedMessage) -> rules.RuleOutcome:
        """Return the outcome of the rule for a message; shadows that its statement reads are loaded first."""
        meter = sql.new_meter()
        known: dict[tuple[str, str | None], Any] = {}
        while True:
            try:
                return rules.apply_rule(self.ready, message, self._rules.entropy, sql.ShadowLookup(known), meter)
            except sql.ShadowWantedError as wanted:
                if len(known) >= _MAX_SHADOWS:
                    return rules.RuleOutcome()
                known[wanted.thing, wanted.name] = await self._rules.shadow(wanted.thing, wanted.name)


class TopicRules(AccountService):
    """The rules of the account."""

    def __init__(
        self,
        account: Account,
        database: Database,
        clock: Clock,
        entropy: Entropy,
        *,
        shadows: ShadowService,
        destinations: Destinations,
        queue: Queue,
        record: Callable[[BirthmarkError], object] = lambda _: None,
    ) -> None:
        """Create the service; `record` files errors of rules."""
        super().__init__(database, clock, entropy)
        self._account = account
        self._shadows = shadows
        self.destinations = destinations
        self._ready: dict[str, _ActiveRule] = {}
        self.intake: WriteAheadLog | None = None
        self.engine: RuleEngine[LoggedMessage]
        self.queue = queue
        self._whose: Whose = str
        self.record = record

    def begin(
        self,
        stream: SqlStream[LoggedMessage],
        held: SqlStream[DeferredMessage[LoggedMessage]],
        sinks: Mapping[str, Sink],
        leads: Leads = always,
        whose: Whose = str,
    ) -> None:
        """Start to process published messages; rules that are already loaded apply."""
        self.intake, self._whose = WriteAheadLog(stream), whose
        parts = (self.database, self.clock, stream)
        self.engine = RuleEngine(
            *parts,
            queue=self.queue,
            sinks=sinks,
            find=self.find,
            held=held,
            leads=leads,
            refused=self.record_refusal,
            failed=self.handle_failed_delivery,
        )
        self.queue.serve(sinks, self.handle_failed_delivery)
        self._let_know()

    # ---- stored rules

    async def load(self) -> None:
        """Compile all rules and subscribe to their changes."""
        await self._read()
        self.database.on_events(self._hear)

    async def _read(self) -> None:
        ready: dict[str, _ActiveRule] = {}
        for row in await self.database.all(store.ALL_RULES):
            known = store.RULES.of(row)
            before = self._ready.get(known.name)
            if before is not None and before.ready.rule == known:
                ready[known.name] = before
                continue
            try:
                made = rules.prepare_rule(known, self._account.account_id)
            except BirthmarkError as error:  # from an earlier release; the others continue
                note(f"the rule {known.name}", error)
                continue
            ready[known.name] = _ActiveRule(self, made)
        self._ready = ready
        await self.destinations.read()
        self._let_know()

    def _let_know(self) -> None:
        if self.intake is not None:
            self.intake.wanted.set_rules(
                (one.ready.filter, name)
                for name, one in self._ready.items()
                if one.ready.filter is not None and not one.ready.rule.is_disabled
            )

    def _hear(self, events: Sequence[Heard], is_sure: bool) -> None:  # noqa: FBT001 - port signature
        del is_sure
        if any(isinstance(event, RuleChanged) for _, event in events):
            self.database.sharing.read(self._read())

    async def get(self, name: str) -> TopicRule:
        """Return a rule. Raise `UnknownRuleError`."""
        if (row := await self.database.one(store.GET_RULE, name=name)) is None:
            raise rules.UnknownRuleError(rule=name[:128])
        return store.RULES.of(row)

    async def ready(self, name: str) -> PreparedRule:
        """Return a compiled rule. Raise `UnknownRuleError`."""
        return rules.prepare_rule(await self.get(name), self._account.account_id)

    def count_deliveries(self, name: str) -> int:
        """Return the number of deliveries of a rule's actions since the process started.

        Its error action is not included.
        """
        counters = self.engine.gone, self.queue.carried
        own = [lane for some in counters for lane in some if lane.rpartition("/")[0] == name]
        return sum(some[lane] for some in counters for lane in {*own} if lane.rpartition("/")[2].isdigit())

    async def replay(self, name: str, *, actor: str) -> int:
        """Retry the dead letters of a rule; return their number. Raise `UnknownRuleError`."""
        await self.get(name)
        lanes = await self.queue.counts(name)
        changes = self.queue.retry_changes(name).audit(actor, "awsiot.rule_replay", name)
        await self.database.commit(changes)
        self.queue.wake()
        return sum(one.dead for one in lanes.values())

    async def dry_run(
        self, text: str | None, name: str | None, topic: str, payload: bytes, client_id: str
    ) -> Mapping[str, Any]:
        """Return the dry-run result of a statement or a rule for a message; nothing is sent.

        Raise `SqlInvalidError`, `ClientIdInvalidError`, `TopicInvalidError`.
        """
        check_client_id(client_id, is_kept=False)
        check_size(client_id, topic)
        now = self.clock.now()
        await wait_for_caller_turn()
        if name is not None:
            ready = await self.ready(name)
        else:
            given = {"sql": text or "", "actions": [], "awsIotSqlVersion": "2016-03-23"}
            ready = rules.prepare_rule(TopicRule("trial", given, False, now, now, 1), self._account.account_id)  # noqa: FBT003
        noted = LoggedMessage(client_id, self.clock.micros(), topic, payload)
        made = await _ActiveRule(self, ready).apply(noted)
        return {
            "matches": _is_for(ready, topic) or rules.basic_ingest(topic) is not None,
            "selected": made.payload is not None,
            "payload": "" if made.payload is None else readable(made.payload)[0],
            "actions": [
                {"action": one.kind, "address": dict(one.address), "problem": _problem_of(one.kind, one.address)}
                for one in made.letters
            ],
        }

    def _listed(self, rule: TopicRule) -> ListedRule:
        ready = self._ready.get(rule.name)
        if ready is not None and ready.ready.rule == rule:
            return ListedRule(rule, ready.ready.filter)
        try:
            return ListedRule(rule, rules.prepare_rule(rule, self._account.account_id).filter)
        except BirthmarkError:  # from an earlier release; it can be viewed, disabled and deleted
            return ListedRule(rule, None)

    async def page(self, after: str, size: int, *, topic: str | None, is_disabled: bool | None) -> Page[ListedRule]:
        """Return rules ordered by name: all rules, or the rules that match a topic or a topic filter."""
        rows = await self.database.all(store.LIST_RULES, after=after, limit=store.MAX_RULES)
        found: list[ListedRule] = []
        for row in rows:
            known = self._listed(store.RULES.of(row))
            is_wanted = is_disabled is None or known.rule.is_disabled is is_disabled
            if is_wanted and (topic is None or _is_for(known, topic)):
                found.append(known)
                if len(found) > size:
                    break
        return page_of(found, size, [one.name for one in found])

    async def create(self, name: str, payload: Mapping[str, Any], *, tags: Tags = NO_TAGS, actor: str) -> TopicRule:
        """Create a rule. Raise `RuleExistsError`, `RulesFullError`, or the validation errors of the rule."""
        if _NAME.fullmatch(name) is None:
            raise BodyInvalidError(detail="ruleName must have 1 to 128 letters, digits and _")
        now = self.clock.now()
        made = self._checked(TopicRule(name, payload, bool(payload.get("ruleDisabled")), now, now, 1))
        if len(await self.database.all(store.ALL_RULES)) >= store.MAX_RULES:
            raise rules.RulesFullError(count=store.MAX_RULES, what="rules")
        changes = Changes().run(
            store.ADD_RULE, expect=1, otherwise=rules.RuleExistsError(rule=name), **store.RULES.row(made)
        )
        changes.merge(written("rule", name, tags)).event(RuleChanged(name))
        await self._commit(changes.audit(actor, "awsiot.rule_create", name))
        return made

    async def replace(self, name: str, payload: Mapping[str, Any], *, actor: str) -> None:
        """Replace a rule. Raise `UnknownRuleError`, or the validation errors of the rule."""
        await self._change(
            name,
            lambda known: replace(known, payload=payload, is_disabled=bool(payload.get("ruleDisabled"))),
            "awsiot.rule_replace",
            actor,
        )

    async def set_disabled(self, name: str, *, is_disabled: bool, actor: str) -> None:
        """Enable or disable a rule."""
        action = "awsiot.rule_disable" if is_disabled else "awsiot.rule_enable"
        await self._change(name, lambda known: replace(known, is_disabled=is_disabled), action, actor)

    async def _change(self, name: str, change: Callable[[TopicRule], TopicRule], action: str, actor: str) -> None:
        async def decide() -> None:
            known = await self.get(name)
            made = replace(change(known), modified_at=self.clock.now(), revision=known.revision + 1)
            if made.payload != known.payload or not made.is_disabled:  # an invalid rule must be possible to disable
                self._checked(made)
            row = store.RULES.row(made)
            told = {column: row[column] for column in ("payload", "is_disabled", "modified_at", "revision")}
            changes = Changes().run(store.CHANGE_RULE, expect=1, key_name=name, key_revision=known.revision, **told)
            await self._commit(changes.event(RuleChanged(name)).audit(actor, action, name))

        await retry_on_conflict(decide, after=ChangedMeanwhileError)

    async def delete(self, name: str, *, actor: str) -> None:
        """Delete a rule and its pending deliveries. Raise `UnknownRuleError`."""
        missing = rules.UnknownRuleError(rule=name[:128])
        changes = Changes().run(store.REMOVE_RULE, expect=1, otherwise=missing, name=name)
        changes.merge(tag_deletes("rule", name)).merge(self.queue.deletion_changes(name))
        await self._commit(changes.event(RuleChanged(name)).audit(actor, "awsiot.rule_delete", name))

    async def _commit(self, changes: Changes) -> None:
        await self.database.commit(changes)
        await self._read()

    def _checked(self, rule: TopicRule) -> TopicRule:
        ready = rules.prepare_rule(rule, self._account.account_id)
        for action in (*ready.actions, *((ready.error_action,) if ready.error_action else ())):
            self.destinations.check(action)
            constant = {name: text.constant for name, text in action.templates.items()}
            if problem := _problem_of(action.kind, constant):
                raise rules.SqlInvalidError(where="s3 action", detail=problem)
        return rule

    # ---- published messages

    def take(self, messages: Sequence[BrokerMessage], done: Done) -> tuple[Done, Awaitable[None] | None] | None:
        """Log the messages that match a rule; see `birthmark.broker.ports.Tap`."""
        if (intake := self.intake) is None or not intake.wanted.any:
            return None
        by = intake.wanted.by
        found = [one for one in messages if by(one.topic)]
        if not found:
            return None
        return self._note(intake, [self._noted(one) for one in found], done)

    def wants(self, topic: str) -> bool:
        """Return whether a rule matches this topic."""
        return self.intake is not None and self.intake.wanted.any and bool(self.intake.wanted.by(topic))

    def log_republished(self, messages: Sequence[tuple[BrokerMessage, Sequence[str]]], done: Done) -> Done:
        """Log republished messages that match other rules; each message carries the rules that led to it."""
        assert self.intake is not None  # noqa: S101 - engine runs
        by = self.intake.wanted.by
        found = [_with_trail(self._noted(one), trail) for one, trail in messages if by(one.topic)]
        return self._note(self.intake, found, done)[0] if found else done

    def _note(
        self, intake: WriteAheadLog, noted: Sequence[LoggedMessage], done: Done
    ) -> tuple[Done, Awaitable[None] | None]:
        problem: BaseException | None = None
        left = 2

        def one_done(why: BaseException | None) -> None:
            nonlocal left, problem
            left, problem = left - 1, problem or why
            if not left:
                done(problem)

        owner = noted[0].publisher
        return one_done, intake.note(owner, noted, one_done)

    def _noted(self, message: BrokerMessage) -> LoggedMessage:
        principal = message.principal or (self._whose(message.publisher) if message.publisher else "")
        return LoggedMessage(
            message.publisher,
            self.clock.micros(),
            message.topic,
            message.payload,
            message.qos,
            message.retain,
            message.properties,
            principal,
            LED_BY.get(),
        )

    async def ingest(self, topic: str, payload: bytes, qos: int, client_id: str, principal: str) -> None:
        """Process a message for a single rule (basic ingest); ignore it if the rule is missing or disabled."""
        found = rules.basic_ingest(topic)
        if found is None or self.intake is None or (known := self._ready.get(found[0])) is None:
            return
        if known.ready.rule.is_disabled:
            return
        safe, done = until_done()
        noted = LoggedMessage(
            *(client_id, self.clock.micros(), topic, payload, qos),
            principal=principal,
            trail=LED_BY.get(),
            only=found[0],
        )
        if (room := self.intake.note(noted.publisher, [noted], done)) is not None:
            await room
        await safe

    # ---- engine queries

    def find(self, message: LoggedMessage) -> Iterable[_ActiveRule]:
        """Return the rules that match a message."""
        assert self.intake is not None  # noqa: S101 - engine runs
        names = (message.only,) if message.only else self.intake.wanted.by(message.topic)
        found = (self._ready.get(name) for name in names)
        return [one for one in found if one is not None and not one.ready.rule.is_disabled]

    def record_refusal(self, rule: Any, message: LoggedMessage, error: BirthmarkError) -> None:
        """File an error of a rule that could not be applied to a message."""
        del rule
        error.add_facts(thing=message.device_id)
        self.record(error)

    async def handle_failed_delivery(self, delivery: Delivery, error: BirthmarkError) -> None:
        """File a delivery that failed permanently, and run the rule's error action."""
        name = delivery.lane.rpartition("/")[0]
        reason = error.explain_cause().removesuffix(".")
        facts: dict[str, Any] = {
            "thing": delivery.origin.get("client", ""),
            "topic": delivery.origin.get("topic", "")[:200],
        }
        if (known := self._ready.get(name)) is None:
            await self.destinations.failed(name, reason)
            return
        self.record(rules.RuleActionFailedError(rule=name, action=delivery.kind, reason=reason, **facts))
        if (told := rules.error_delivery(known.ready, delivery, reason, self.entropy)) is not None:
            await self.engine.send(f"{self.clock.micros():016x}-{self.entropy.token(6).hex()}", told)

    async def shadow(self, thing: str, name: str | None) -> Any:
        """Return a shadow as JSON, or undefined if it does not exist."""
        try:
            owner = parse_thing_name(thing)
            found = await self._shadows.get(owner, "" if name is None else parse_shadow_name(owner, name))
        except (InvalidRequestError, NotFoundError):
            return sql.UNDEFINED
        return decode_json(shadow_json(found, self._shadows.now()))


def _problem_of(kind: str, address: Mapping[str, Any]) -> str | None:
    """Return why an action would fail at this address, or None.

    Parts of the address may be None while they are not known.
    """
    bucket, key = address.get("bucket"), address.get("key")
    if kind == "s3" and bucket is not None and not is_bucket(bucket):
        return f"the bucket {bucket[:100]!r} must have 3 to 256 letters, digits, dots, _ and -"
    if kind == "s3" and key is not None and not is_key(key):
        return f"the key {key[:100]!r} is not a path of printable text without empty segments, . and .."
    return None


def _with_trail(noted: LoggedMessage, trail: Sequence[str]) -> LoggedMessage:
    """Return a message with the trail of rules that led to it."""
    return LoggedMessage(
        *(noted.device_id, noted.enqueued_micros, noted.topic, noted.payload, noted.qos, noted.is_retained),
        *(noted.properties, noted.principal, tuple(trail)),
    )


def _is_for(ready: PreparedRule | ListedRule, topic: str) -> bool:
    return ready.filter is not None and (ready.filter == topic or matches(ready.filter, topic))
