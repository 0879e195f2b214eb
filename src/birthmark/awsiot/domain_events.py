"""Internal events of the account; dependent components reload their state.

Things, policies, and certificates may be recreated under their old name, with versions restarting at 1. The events
therefore carry no version.
"""

from birthmark.store import Event


class ThingChanged(Event, frozen=True, tag="awsiot.thing_changed"):
    """A thing was created, changed, or deleted."""

    thing: str

    @property
    def entity(self) -> str:
        return self.thing


class PolicyChanged(Event, frozen=True, tag="awsiot.policy_changed"):
    """The effective version of a policy changed."""

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
    """A policy was attached to a thing group or detached, or the group was deleted."""

    thing_group: str

    @property
    def entity(self) -> str:
        return self.thing_group


class SettingsChanged(Event, frozen=True, tag="awsiot.settings_changed"):
    """An account setting changed, such as its event configuration."""

    setting: str

    @property
    def entity(self) -> str:
        return self.setting


class AccessKeyAdded(Event, frozen=True, tag="awsiot.access_key_added"):
    """An access key was added; it is valid for signatures."""

    access_key_id: str

    @property
    def entity(self) -> str:
        return self.access_key_id


class AccessKeyRemoved(Event, frozen=True, tag="awsiot.access_key_removed"):
    """An access key was deleted."""

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
    """A role alias was deleted, together with all credentials issued through it."""

    alias: str

    @property
    def entity(self) -> str:
        return self.alias


class CertificateChanged(Event, frozen=True, tag="awsiot.certificate_changed"):
    """A certificate's status changed; a deleted one has the status DELETED."""

    certificate_id: str
    status: str

    @property
    def entity(self) -> str:
        return self.certificate_id


class RuleChanged(Event, frozen=True, tag="awsiot.rule_changed"):
    """A topic rule was created, changed, enabled, disabled, or deleted; or a destination of rules changed."""

    rule: str

    @property
    def entity(self) -> str:
        return self.rule
