"""Events of changes to provisioning services, enrollments, groups and CA certificates."""

from birthmark.dps.model import IdScope
from birthmark.store import Event


class InstancesChanged(Event, frozen=True, tag="dps.instances_changed"):
    """A provisioning service was created, changed or removed."""

    @property
    def entity(self) -> str:
        return "all"


class EnrollmentChanged(Event, frozen=True, tag="dps.enrollment_changed"):
    """An individual enrollment was created, changed or removed."""

    scope: IdScope
    registration_id: str

    @property
    def entity(self) -> str:
        return f"{self.scope}/{self.registration_id}"


class GroupChanged(Event, frozen=True, tag="dps.group_changed"):
    """An enrollment group was created, changed or removed."""

    scope: IdScope
    group_id: str

    @property
    def entity(self) -> str:
        return f"{self.scope}/{self.group_id}"


class AuthorityChanged(Event, frozen=True, tag="dps.authority_changed"):
    """A registered CA certificate was added, verified, given a new verification code, or removed."""

    scope: IdScope
    name: str

    @property
    def entity(self) -> str:
        return f"{self.scope}/{self.name}"
