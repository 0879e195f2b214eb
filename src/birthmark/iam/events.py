"""What the room announces."""

from birthmark.store import Event


class PeopleChanged(Event, frozen=True, tag="people.changed"):
    """A user, what one may do, or a token was made, changed or removed."""

    user: str

    @property
    def entity(self) -> str:
        return self.user
