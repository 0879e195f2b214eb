"""Places where people have roles, as this room needs them: whether one is there, and that roles end with theirs."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from birthmark.errors import NotFoundError
from birthmark.store import Changes

Commit = Callable[[Changes], Awaitable[None]]


class PlaceMissingError(NotFoundError):
    """The scope does not exist."""

    code = "people.place_missing"
    message = "{place} does not exist"
    cause = "{place} does not exist on this server; roles, tokens and approvals need an existing scope."
    fix = "List scopes: `birthmark hub ls`, `birthmark dps ls`. Create it first, or choose another one."
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
