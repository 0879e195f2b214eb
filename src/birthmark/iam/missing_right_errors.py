"""Authorization errors that name the missing right and the roles that include it."""

from birthmark.auth.permission_statements import Right
from birthmark.auth.principals import Caller
from birthmark.errors import BirthmarkError, ForbiddenError
from birthmark.iam.model import roles_with


class RightMissingError(ForbiddenError):
    """The role does not permit the operation."""

    code = "operator.role_too_low"
    message = "This needs the right to {right} at {place}"
    cause = "{who} does not have the right to {right} at {place}, which this operation needs."
    fix = "Ask an administrator for a role with this right, {roles}: `birthmark role grant {user} {role} --at {place}`"
    for_a_person = "an administrator has to grant the role"
    place: str
    right: str
    role: str
    roles: str
    user: str
    who: str


class TokenTooNarrowError(RightMissingError):
    """The token does not permit the operation."""

    code = "operator.token_too_narrow"
    message = "This token has no right to {right} at {place}"
    cause = "This token of {user} is limited and lacks the right to {right} at {place}, which this operation needs."
    fix = "Use a token with this right: `birthmark token create --user {user} --role {role} --at {place}`"
    for_a_person = "another user has to create the token"


class NarrowedTokenError(ForbiddenError):
    """A limited token cannot make permanent changes."""

    code = "people.token_narrowed"
    cause = (
        "The token is limited in rights or lifetime and cannot make changes that outlast it. It cannot "
        "create or remove tokens, assign roles, approve operations, end sessions or show keys. It cannot "
        "create access keys, policies, CAs, groups, EST users, EST tokens of more than a day, role "
        "aliases, templates, streams or silences. It cannot create rules, routes, hubs, webhooks, "
        "invitations or passwords."
    )
    fix = "Repeat the operation in a session where you are signed in."
    for_a_person = "a signed-in user has to do it"


def check_whole(caller: Caller) -> None:
    """Raise `NarrowedTokenError` for a token with fewer rights or a shorter lifetime than its user's sign-in."""
    if caller.is_narrowed:
        raise NarrowedTokenError


def require_right(caller: Caller, right: Right, scope: str) -> None:
    """Raise `RightMissingError` unless the caller has the right at this scope."""
    if caller.rights.allow(right, scope):
        return
    roles = roles_with(right)
    kind = TokenTooNarrowError if caller.is_bound else RightMissingError
    raise kind(
        user=caller.user or "NAME",
        place=scope,
        right=right.value,
        role=roles[0].value,
        roles=" or ".join(roles),
        who=caller.user or "The caller",
    )


def format_refusal(error: BirthmarkError) -> str:
    """Return a refusal as text for the vendors' programs; a missing right includes its fix."""
    return f"{error}. {error.explain_fix()}" if isinstance(error, RightMissingError) else str(error)
