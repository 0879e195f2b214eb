"""What the provisioning service announces."""

from birthmark.dps.model import IdScope
from birthmark.store import Event


class InstancesChanged(Event, frozen=True, tag="dps.instances_changed"):
    """Some provisioning service was made, changed or removed."""

    @property
    def entity(self) -> str:
        return "all"


class EnrollmentChanged(Event, frozen=True, tag="dps.enrollment_changed"):
    """An individual enrollment was made, changed or removed."""

    scope: IdScope
    registration_id: str

    @property
    def entity(self) -> str:
        return f"{self.scope}/{self.registration_id}"


class GroupChanged(Event, frozen=True, tag="dps.group_changed"):
    """An enrollment group was made, changed or removed."""

    scope: IdScope
    group_id: str

    @property
    def entity(self) -> str:
        return f"{self.scope}/{self.group_id}"


class AuthorityChanged(Event, frozen=True, tag="dps.authority_changed"):
    """A CA on record was added, verified, given another code or removed."""

    scope: IdScope
    name: str

    @property
    def entity(self) -> str:
        return f"{self.scope}/{self.name}"
