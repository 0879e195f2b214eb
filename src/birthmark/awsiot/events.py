"""What the account announces; whoever depends on it looks again.

Things, policies and certificates may be made anew under their old name, with their version counted from 1 again: so
none of these carries one.
"""

from birthmark.store import Event


class ThingChanged(Event, frozen=True, tag="awsiot.thing_changed"):
    """A thing was made, changed or deleted."""

    thing: str

    @property
    def entity(self) -> str:
        return self.thing


class PolicyChanged(Event, frozen=True, tag="awsiot.policy_changed"):
    """Another version of a policy counts."""

    policy: str

    @property
    def entity(self) -> str:
        return self.policy


class GrantsChanged(Event, frozen=True, tag="awsiot.grants_changed"):
    """A thing or a policy was attached to a certificate, or detached."""

    certificate_id: str

    @property
    def entity(self) -> str:
        return self.certificate_id


class ThingGroupChanged(Event, frozen=True, tag="awsiot.thing_group_changed"):
    """A policy was attached to a thing group, or detached, or the group is gone."""

    thing_group: str

    @property
    def entity(self) -> str:
        return self.thing_group


class SettingsChanged(Event, frozen=True, tag="awsiot.settings_changed"):
    """The account was told something else, such as what it announces."""

    setting: str

    @property
    def entity(self) -> str:
        return self.setting


class AccessKeyAdded(Event, frozen=True, tag="awsiot.access_key_added"):
    """An access key may sign from now on."""

    access_key_id: str

    @property
    def entity(self) -> str:
        return self.access_key_id


class AccessKeyRemoved(Event, frozen=True, tag="awsiot.access_key_removed"):
    """An access key signs nothing any more."""

    access_key_id: str

    @property
    def entity(self) -> str:
        return self.access_key_id


class AuthorizerChanged(Event, frozen=True, tag="awsiot.authorizer_changed"):
    """A custom authorizer was changed or removed."""

    authorizer: str
    is_active: bool

    @property
    def entity(self) -> str:
        return self.authorizer


class RoleAliasRemoved(Event, frozen=True, tag="awsiot.role_alias_removed"):
    """A role alias is gone, and with it every key that was made by it."""

    alias: str

    @property
    def entity(self) -> str:
        return self.alias


class CertificateChanged(Event, frozen=True, tag="awsiot.certificate_changed"):
    """A certificate has another status; a deleted one has the status DELETED."""

    certificate_id: str
    status: str

    @property
    def entity(self) -> str:
        return self.certificate_id


class RuleChanged(Event, frozen=True, tag="awsiot.rule_changed"):
    """A topic rule was made, changed, switched on or off, or removed; or a destination that rules send to."""

    rule: str

    @property
    def entity(self) -> str:
        return self.rule
