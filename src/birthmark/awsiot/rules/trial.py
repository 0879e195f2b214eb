"""TestAuthorization: what policies would say, policy by policy, of somebody who did not connect."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from birthmark.awsiot.rules.conditions import CURRENT_TIME, EPOCH_TIME
from birthmark.awsiot.rules.policy import Outcome, Permissions, Policy
from birthmark.awsiot.rules.variables import Facts

ACTIONS: Mapping[str, str] = {
    "PUBLISH": "iot:Publish",
    "SUBSCRIBE": "iot:Subscribe",
    "RECEIVE": "iot:Receive",
    "CONNECT": "iot:Connect",
}
_VARIABLE = re.compile(r"\$\{([^{}*?$]+)\}")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is decided, and the names of the policies that allow, that deny and that say nothing."""

    outcome: Outcome
    allowing: Sequence[str]
    denying: Sequence[str]
    silent: Sequence[str]
    missing: Sequence[str]
    """What the policies ask of a connection and nobody told."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Policies, and what is known of whoever would come."""

    policies: Sequence[Policy]
    facts: Facts
    now: datetime

    def judge(self, action: str, resources: Sequence[str]) -> Verdict:
        """Return what is decided of an action on all of these resources together."""
        whole = Permissions(self.policies, self.facts)
        outcomes = {whole.judge(action, resource, self.now).outcome for resource in resources}
        by_policy = {policy.name: self._outcomes(policy, action, resources) for policy in self.policies}
        allowing = [name for name, found in by_policy.items() if Outcome.ALLOWED in found]
        denying = [name for name, found in by_policy.items() if Outcome.EXPLICIT_DENY in found]
        order = (Outcome.EXPLICIT_DENY, Outcome.IMPLICIT_DENY, Outcome.ALLOWED)
        outcome = next((one for one in order if one in outcomes), Outcome.IMPLICIT_DENY)
        silent = [name for name in by_policy if name not in (*allowing, *denying)]
        return Verdict(
            outcome, allowing, denying, silent if outcome is Outcome.IMPLICIT_DENY else (), self._missing(action)
        )

    def _outcomes(self, policy: Policy, action: str, resources: Sequence[str]) -> set[Outcome]:
        alone = Permissions([policy], self.facts)
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
