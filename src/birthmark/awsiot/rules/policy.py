"""Policies: parsing and evaluation (developer guide, "AWS IoT Core policies"; IAM reference).

An explicit deny wins, and the default is deny. A document is parsed once; `ConnectionPermissions` binds a principal's
statements to the variables of one connection and caches its decisions.
"""

import enum
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from birthmark.auth.policy_wildcards import Glob, glob_of
from birthmark.awsiot.rules.policy_conditions import (
    CURRENT_TIME,
    EPOCH_TIME,
    PolicyCondition,
    UnknownOperatorError,
    parse_condition,
)
from birthmark.awsiot.rules.policy_variables import PolicyVariables, UnsafeVariableValue, is_plain, substitute
from birthmark.errors import ForbiddenError, InvalidRequestError
from birthmark.untrusted_json_and_text import read_json

MAX_DOCUMENT_CHARS = 2048
"""Maximum length of a policy document, without white space."""
MAX_IAM_CHARS = 6144
"""Maximum policy size of an access key or a role."""
_VERSIONS = frozenset({"2012-10-17", "2008-10-17"})
MAX_OF_ONE = 64
"""Maximum cached decisions of each kind per connection; there may be very many connections."""
MAX_SHARED = 4096
"""Maximum cached decisions shared by connections with the same policies, if those ignore the connection."""


class PolicyMalformedError(InvalidRequestError):
    """The policy document is malformed."""

    code = "awsiot.policy_malformed"
    message = "Policy document is malformed: {detail}"
    fix = (
        "Use a valid policy document. For example, to create a policy that allows a client to connect with its "
        "thing's name: `aws iot create-policy --policy-name connect --policy-document "
        '\'{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":"iot:Connect","Resource":"arn:aws:iot:*:*:client/${{iot:Connection.Thing.ThingName}}"}}]}}\'`'
    )
    detail: str


class PolicyDeniedError(ForbiddenError):
    """The certificate's policies do not allow this action."""

    code = "awsiot.policy_denied"
    message = "{action} on {resource} is denied"
    cause = (
        "{action} on {resource} was denied: {hint}. With MQTT 3.1.1, the server closes the connection; with MQTT 5, "
        "the server returns a reason code."
    )
    fix = (
        "Make sure that a policy of the certificate {certificate_id} allows {action} on {resource} and that no "
        "policy denies this action: `{command}`. Subscribing requires iot:Subscribe on topicfilter/…, and receiving "
        "requires iot:Receive on topic/…."
    )
    action: str
    certificate_id: str
    command: str
    hint: str
    resource: str
    thing: str


class KeyDeniedError(PolicyDeniedError):
    """The access key's policies do not allow this action."""

    code = "awsiot.key_denied"
    message = "User: {user} is not authorized to perform: {action} on resource: {resource} {because}"
    cause = "{user} requested {action} on {resource}, and the request was denied: {hint}."
    fix = (
        "Grant a policy that allows {action} on {resource}. For an access key, use --policy when you create the key; "
        "for a role, use [roles] in the configuration. List access keys: `birthmark aws key ls`"
    )
    because: str
    user: str


class AuthDecision(enum.Enum):
    """AuthDecision of the service model."""

    ALLOWED = "ALLOWED"
    EXPLICIT_DENY = "EXPLICIT_DENY"
    IMPLICIT_DENY = "IMPLICIT_DENY"


@dataclass(frozen=True, slots=True)
class PolicyDecision:
    """Outcome of an evaluation, with the statement that caused it as text."""

    outcome: AuthDecision
    hint: str

    @property
    def is_allowed(self) -> bool:
        return self.outcome is AuthDecision.ALLOWED


@dataclass(frozen=True, slots=True)
class AwsPolicyStatement:
    """One statement; `place` is its position for messages."""

    place: str
    allows: bool
    actions: tuple[Glob, ...]
    except_actions: bool
    resources: tuple[str, ...]
    except_resources: bool
    conditions: tuple[PolicyCondition, ...]

    def names(self, action: str) -> bool:
        """Return whether the statement applies to this action (in lowercase)."""
        return any(glob.matches(action) for glob in self.actions) is not self.except_actions


@dataclass(frozen=True, slots=True)
class AwsPolicy:
    """A parsed policy document."""

    name: str
    statements: tuple[AwsPolicyStatement, ...]

    @property
    def is_of_one_device(self) -> bool:
        """Return whether all allowed resources are bound to the connecting thing or certificate."""
        return all(
            not one.except_resources and all(map(_OF_ONE_DEVICE.search, one.resources))
            for one in self.statements
            if one.allows
        )


class _Statement(msgspec.Struct, forbid_unknown_fields=True, rename="pascal"):
    effect: str
    sid: str = ""
    action: str | list[str] | None = None
    not_action: str | list[str] | None = None
    resource: str | list[str] | None = None
    not_resource: str | list[str] | None = None
    condition: dict[str, dict[str, Any]] = {}


class _Document(msgspec.Struct, forbid_unknown_fields=True, rename="pascal"):
    statement: _Statement | list[_Statement]
    version: str = "2008-10-17"
    id: str = ""


def are_of_one_device(documents: Iterable[str]) -> bool:
    """Return whether all resources that policies allow are bound to the connecting thing or certificate."""
    return all(parse_policy("", document).is_of_one_device for document in documents)


@lru_cache(maxsize=4096)
def parse_policy(name: str, document: str, *, of_iam: bool = False) -> AwsPolicy:
    """Parse a device policy or, with `of_iam`, an IAM policy, which may name actions of other services.

    Raise `PolicyMalformedError`.
    """
    most = MAX_IAM_CHARS if of_iam else MAX_DOCUMENT_CHARS
    if len("".join(document.split())) > most:
        raise PolicyMalformedError(detail=f"it is larger than {most} characters")
    parsed = read_json(document.encode(errors="surrogatepass"), _Document, PolicyMalformedError)
    if parsed.version not in _VERSIONS:
        raise PolicyMalformedError(detail=f"Version is {parsed.version!r} and not 2012-10-17")
    statements = parsed.statement if isinstance(parsed.statement, list) else [parsed.statement]
    if not statements:
        raise PolicyMalformedError(detail="Statement is empty")
    of_service = _ACTION if of_iam else _OF_IOT
    return AwsPolicy(
        name, tuple(_statement(name, number, each, of_service) for number, each in enumerate(statements, 1))
    )


def check_new(name: str, document: str) -> None:
    """Raise `PolicyMalformedError` if a new policy is invalid.

    Stored ones may have actions that match nothing.
    """
    parse_policy(name, document)
    statements = read_json(document.encode(), _Document, PolicyMalformedError).statement
    for one in statements if isinstance(statements, list) else [statements]:
        for given in (one.action, one.not_action):
            for action in [given] if isinstance(given, str) else given or ():
                if not (action.isascii() and action.isprintable()) or " " in action:
                    raise PolicyMalformedError(detail=f"the action {action!a} contains a character that is not allowed")


class _SharedPolicyCache:
    """Decision cache shared by connections with the same policies."""

    __slots__ = ("__weakref__", "receives")

    def __init__(self) -> None:
        self.receives: dict[str, bool] = {}


_SHARED: "WeakValueDictionary[tuple[AwsPolicy, ...], _SharedPolicyCache]" = WeakValueDictionary()


@dataclass(slots=True)
class ConnectionPermissions:
    """Permissions of one connection."""

    policies: Sequence[AwsPolicy]
    facts: PolicyVariables
    _patterns: dict[tuple[str, UnsafeVariableValue], Glob | None] = field(default_factory=dict)
    _known: dict[tuple[str, str], PolicyDecision] = field(default_factory=dict)
    asks_time: bool = False
    """Whether decisions depend on the time and may change by themselves."""
    receives: dict[str, bool] = field(default_factory=dict)
    """Cached receive decisions by topic."""
    _shared: "_SharedPolicyCache | None" = None

    def __post_init__(self) -> None:
        statements = [statement for policy in self.policies for statement in policy.statements]
        conditions = [condition for statement in statements for condition in statement.conditions]
        self.asks_time = any(condition.asks_time for condition in conditions)
        if not conditions and all(is_plain(resource) for one in statements for resource in one.resources):
            key = tuple(self.policies)
            if (known := _SHARED.get(key)) is None:
                known = _SHARED[key] = _SharedPolicyCache()
            self._shared = known

    def decide(self, action: str, resource: str, now: datetime) -> PolicyDecision:
        """Return the decision about `action` (such as iot:Publish) on a resource's ARN."""
        if (known := self._known.get((action, resource))) is not None:
            return known
        made = self.judge(action, resource, now)
        if not self.asks_time:
            if len(self._known) >= MAX_OF_ONE:
                self._known.clear()
            self._known[action, resource] = made
        return made

    def may_receive(self, topic: str, resource: str, now: datetime) -> bool:
        """Return whether a message may be delivered; `resource` is the topic's ARN.

        A connection that receives over several topics shares its cache with connections of the same permissions.
        """
        known = self.receives
        if len(known) >= MAX_OF_ONE and topic not in known and self._shared is not None:
            known = self._shared.receives
        if (may := known.get(topic)) is None:
            may = self.judge("iot:Receive", resource, now).is_allowed
            if not self.asks_time:
                if len(known) >= (MAX_OF_ONE if known is self.receives else MAX_SHARED):
                    known.clear()
                known[topic] = may
        return may

    def denial(self, action: str) -> PolicyDecision | None:
        """Return a denial of the action on any resource under any condition, if there is one."""
        low = action.lower()
        for policy in self.policies:
            for one in policy.statements:
                if not one.allows and one.names(low):
                    return PolicyDecision(AuthDecision.EXPLICIT_DENY, f"{one.place} denies it for some")
        return None

    def judge(self, action: str, resource: str, now: datetime) -> PolicyDecision:
        """Return the same decision without caching it."""
        low = action.lower()
        allowed: AwsPolicyStatement | None = None
        for policy in self.policies:
            for statement in policy.statements:
                if statement.allows and allowed is not None:
                    continue
                if not statement.names(low) or not self._covers(statement, resource):
                    continue
                if not all(condition.holds(self.facts, now) for condition in statement.conditions):
                    continue
                if not statement.allows:
                    return PolicyDecision(AuthDecision.EXPLICIT_DENY, f"{statement.place} denies it")
                allowed = statement
        if allowed is not None:
            return PolicyDecision(AuthDecision.ALLOWED, f"{allowed.place} allows it")
        return PolicyDecision(AuthDecision.IMPLICIT_DENY, self._why_nothing(low, resource))

    def _covers(self, statement: AwsPolicyStatement, resource: str) -> bool:
        """Return whether a statement matches; with an unknown variable it never does, even under NotResource."""
        risky = UnsafeVariableValue.FITS_NOTHING
        if not statement.allows:
            risky = UnsafeVariableValue.IS_NOTHING if statement.except_resources else UnsafeVariableValue.IS_ANYTHING
        globs = [self._pattern(pattern, risky) for pattern in statement.resources]
        if statement.except_resources:
            return all(glob is not None and not glob.matches(resource) for glob in globs)
        return any(glob is not None and glob.matches(resource) for glob in globs)

    def _pattern(self, pattern: str, risky: UnsafeVariableValue) -> Glob | None:
        if is_plain(pattern):
            return _plain(pattern)
        if (pattern, risky) not in self._patterns:
            self._patterns[pattern, risky] = substitute(pattern, self.facts, risky)
        return self._patterns[pattern, risky]

    def _why_nothing(self, action: str, resource: str) -> str:
        if not self.policies:
            return "no policy is attached to the certificate"
        every = (statement for policy in self.policies for statement in policy.statements)
        about = [statement for statement in every if statement.allows and statement.names(action)]
        for statement in about:
            for region in map(_region, statement.resources):
                if _REGION.fullmatch(region) and region != _region(resource):
                    return (
                        f"{statement.place} names the region {region}, and this server is {_region(resource)}: "
                        f'set region = "{region}" under [aws] in the server\'s configuration'
                    )
        if not about:
            return f"no statement of {', '.join(policy.name for policy in self.policies)} allows it"
        places = ", ".join(statement.place for statement in about[:3])
        return f"{places} allows the action, but not on this resource or under these conditions"


_REGION = re.compile("[a-z]{2}(-[a-z]+)+-[0-9]")


def _region(arn: str) -> str:
    return [*arn.split(":"), "", "", "", ""][3]


_plain = lru_cache(maxsize=4096)(glob_of)


_OF_IOT = re.compile(r"\*|(?:iot|greengrass):.*", re.IGNORECASE | re.DOTALL)
"""Policies of Greengrass cores also contain greengrass: actions, which allow nothing here."""
_OF_ONE_DEVICE = re.compile(r"\$\{iot:(?:Connection\.Thing\.ThingName|Certificate\.)", re.IGNORECASE)
_ACTION = re.compile(r"\*|[a-z0-9-]{1,64}:[a-z0-9*?]{1,128}", re.IGNORECASE)


def _statement(policy: str, number: int, statement: _Statement, of_service: re.Pattern[str]) -> AwsPolicyStatement:
    place = f"statement {number}{f' ({statement.sid})' if statement.sid else ''} of policy {policy}"
    if statement.effect not in {"Allow", "Deny"}:
        raise PolicyMalformedError(detail=f"{place}: Effect is neither Allow nor Deny")
    actions = _parse_action_or_not(place, "Action", statement.action, statement.not_action)
    resources = _parse_action_or_not(place, "Resource", statement.resource, statement.not_resource)
    for action in actions:
        if of_service.fullmatch(action) is None:
            detail = f"{place}: the action {action!r} does not begin with iot: or greengrass:"
            raise PolicyMalformedError(detail=detail if of_service is _OF_IOT else f"{place}: no action {action!r}")
    for resource in resources:
        if resource != "*" and not resource.startswith(("arn:", "*")):
            raise PolicyMalformedError(detail=f"{place}: the resource {resource!r} is neither an ARN nor *")
    try:
        conditions = tuple(
            parse_condition(operator, key, _texts(wanted))
            for operator, keys in statement.condition.items()
            for key, wanted in keys.items()
        )
    except UnknownOperatorError as error:
        raise PolicyMalformedError(detail=f"{place}: {error}") from error
    return AwsPolicyStatement(
        place,
        statement.effect == "Allow",
        tuple(glob_of(action.lower()) for action in actions),
        statement.not_action is not None,
        tuple(resources),
        statement.not_resource is not None,
        conditions,
    )


def _parse_action_or_not(path: str, name: str, fitting: Any, others: Any) -> tuple[str, ...]:
    """Return the values of the form in use: `Action` or `NotAction`."""
    if (fitting is None) == (others is None):
        raise PolicyMalformedError(detail=f"{path}: needs {name} or Not{name}")
    if not (texts := _texts(others if fitting is None else fitting)):
        raise PolicyMalformedError(detail=f"{path}: an empty list")
    return texts


def _texts(given: Any) -> tuple[str, ...]:
    """Return one or several values as text; JSON numbers and booleans are converted."""
    values: Iterable[Any] = given if isinstance(given, list) else [given]
    out = []
    for value in values:
        if isinstance(value, bool):
            out.append("true" if value else "false")
        elif isinstance(value, str | int | float):
            out.append(str(value))
        else:
            raise PolicyMalformedError(detail="a condition's value is neither text, number nor boolean")
    return tuple(out)


_ANY = "arn:aws*:iot:*:*:"
_CREATE = "$aws/certificates/create*"


@lru_cache(maxsize=256)
def claim_policies(template: str) -> tuple[AwsPolicy, ...]:
    """Return the policies of a claim certificate for `template`; for any template if it is empty."""
    topics = [_CREATE, f"$aws/provisioning-templates/{template or '*'}/provision/*"]
    concrete, filters = [f"{_ANY}topic/{one}" for one in topics], [f"{_ANY}topicfilter/{one}" for one in topics]
    actions = ["iot:Connect", "iot:Publish", "iot:Receive", "iot:Subscribe"]
    denies: list[dict[str, object]] = [
        {"Effect": "Deny", "Action": ["iot:Publish", "iot:Receive"], "NotResource": concrete},
        {"Effect": "Deny", "Action": "iot:Subscribe", "NotResource": filters},
        {"Effect": "Deny", "NotAction": actions, "Resource": "*"},
    ]
    allows: list[dict[str, object]] = [
        {"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"},
        {"Effect": "Allow", "Action": ["iot:Publish", "iot:Receive"], "Resource": concrete},
        {"Effect": "Allow", "Action": "iot:Subscribe", "Resource": filters},
    ]
    own = [_policy("claim certificate restrictions", denies)]
    if template:
        own.append(_policy("trusted user claim permissions", allows))
    return tuple(own)


def _policy(name: str, statements: list[dict[str, object]]) -> AwsPolicy:
    return parse_policy(name, json.dumps({"Version": "2012-10-17", "Statement": statements}))


ACTIONS: Mapping[str, str] = {
    "PUBLISH": "iot:Publish",
    "SUBSCRIBE": "iot:Subscribe",
    "RECEIVE": "iot:Receive",
    "CONNECT": "iot:Connect",
}
_VARIABLE = re.compile(r"\$\{([^{}*?$]+)\}")


@dataclass(frozen=True, slots=True)
class PolicyVerdict:
    """Decision, with the names of the policies that allow, that deny, and that do not apply."""

    outcome: AuthDecision
    allowing: Sequence[str]
    denying: Sequence[str]
    silent: Sequence[str]
    missing: Sequence[str]
    """Variables that the policies require but the request lacks."""


@dataclass(frozen=True, slots=True)
class PolicySimulation:
    """Policy simulation of an assumed connection."""

    policies: Sequence[AwsPolicy]
    facts: PolicyVariables
    now: datetime

    def judge(self, action: str, resources: Sequence[str]) -> PolicyVerdict:
        """Return the decision about an action on all of these resources together."""
        whole = ConnectionPermissions(self.policies, self.facts)
        outcomes = {whole.judge(action, resource, self.now).outcome for resource in resources}
        by_policy = {policy.name: self._outcomes(policy, action, resources) for policy in self.policies}
        allowing = [name for name, found in by_policy.items() if AuthDecision.ALLOWED in found]
        denying = [name for name, found in by_policy.items() if AuthDecision.EXPLICIT_DENY in found]
        order = (AuthDecision.EXPLICIT_DENY, AuthDecision.IMPLICIT_DENY, AuthDecision.ALLOWED)
        outcome = next((one for one in order if one in outcomes), AuthDecision.IMPLICIT_DENY)
        silent = [name for name in by_policy if name not in (*allowing, *denying)]
        return PolicyVerdict(
            outcome, allowing, denying, silent if outcome is AuthDecision.IMPLICIT_DENY else (), self._missing(action)
        )

    def _outcomes(self, policy: AwsPolicy, action: str, resources: Sequence[str]) -> set[AuthDecision]:
        alone = ConnectionPermissions([policy], self.facts)
        return {alone.judge(action, resource, self.now).outcome for resource in resources}

    def _missing(self, action: str) -> Sequence[str]:
        asked: dict[str, None] = {}
        for policy in self.policies:
            for statement in policy.statements:
                if not statement.names(action.lower()):
                    continue
                texts = [*statement.resources, *(text for one in statement.conditions for text in one.wanted)]
                asked |= dict.fromkeys(name for text in texts for name in _VARIABLE.findall(text))
                asked |= dict.fromkeys(one.key for one in statement.conditions)
        known_anyway = (CURRENT_TIME, EPOCH_TIME)
        return [name for name in asked if name.lower() not in known_anyway and not self.facts.all(name)]
