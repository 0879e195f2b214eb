"""Places where people have roles, as this room needs them: whether one is there, and that roles end with theirs."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from birthmark.errors import NotFoundError
from birthmark.store import Changes

Commit = Callable[[Changes], Awaitable[None]]


class PlaceMissingError(NotFoundError):
    """A role at what is not there would count for whatever is made by that name later."""

    code = "people.place_missing"
    message = "There is no {place}"
    cause = "There is no {place} on this server, and nobody has a role, a token or an approval for what is not there."
    fix = "Those there are: `birthmark hub ls`, `birthmark dps ls`. Make it first, or name another."
    place: str


class ScopeDirectory(Protocol):
    """The hubs and provisioning services there are."""

    def counting_on(self, place: str) -> Changes:
        """Return what holds while a place is there. Raise `PlaceMissingError`."""
        ...


class ScopedRoles(Protocol):
    """What people may do at places."""

    async def end_with(self, place: str, changes: Changes, commit: Commit, *, actor: str) -> None:
        """Commit what removes a place; with it goes what anybody may do there. Raise as the commit does."""
        ...


class _AnyScope:
    def counting_on(self, _place: str) -> Changes:
        return Changes()


class _NoScopes:
    async def end_with(self, _place: str, changes: Changes, commit: Commit, *, actor: str) -> None:  # noqa: ARG002
        await commit(changes)


ANYWHERE: ScopeDirectory = _AnyScope()
NOBODYS: ScopedRoles = _NoScopes()
