"""Event of identity and access management: a user's roles or tokens changed."""

from birthmark.store import Event


class PeopleChanged(Event, frozen=True, tag="people.changed"):
    """A user, role assignment or token was created, changed or deleted."""

    user: str

    @property
    def entity(self) -> str:
        return self.user
