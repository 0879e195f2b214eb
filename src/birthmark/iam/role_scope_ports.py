"""Role scopes: whether they exist, and removal of roles with their scope."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from birthmark.errors import NotFoundError
from birthmark.store import Changes

Commit = Callable[[Changes], Awaitable[None]]


class PlaceMissingError(NotFoundError):
    """The scope does not exist."""

    code = "people.place_missing"
    message = "Scope {place} does not exist"
    cause = "The scope {place} does not exist on this server. Roles, tokens and approvals require an existing scope."
    fix = (
        "Create the scope first, or choose an existing scope. To list the scopes: `birthmark hub ls`, `birthmark dps "
        "ls`"
    )
    place: str


class ScopeDirectory(Protocol):
    """Directory of existing hubs and provisioning services."""

    def guard_scope(self, scope: str) -> Changes:
        """Return a write guard that requires the scope to exist. Raise `PlaceMissingError`."""
        ...


class ScopedRoles(Protocol):
    """Roles by scope."""

    async def remove_scope(self, scope: str, changes: Changes, commit: Commit, *, actor: str) -> None:
        """Commit the removal of a scope together with all roles at it. Raise the errors of `commit`."""
        ...


class _AnyScope:
    def guard_scope(self, _place: str) -> Changes:
        return Changes()


class _NoScopes:
    async def remove_scope(self, _place: str, changes: Changes, commit: Commit, *, actor: str) -> None:  # noqa: ARG002
        await commit(changes)


ANYWHERE: ScopeDirectory = _AnyScope()
NOBODYS: ScopedRoles = _NoScopes()
