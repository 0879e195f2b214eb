"""What somebody may not do, said so that he knows whom to ask for what."""

from birthmark.auth.permissions import Right
from birthmark.auth.principals import Caller
from birthmark.errors import BirthmarkError, ForbiddenError
from birthmark.iam.model import roles_with


class RightMissingError(ForbiddenError):
    """The caller may look, or operate, and asks for more."""

    code = "operator.role_too_low"
    message = "This needs the right to {right} at {place}"
    cause = "{who} may not {right} at {place}, which this needs."
    fix = "Ask an admin for a role that has it, {roles}: `birthmark role grant {user} {role} --at {place}`"
    for_a_person = "somebody else has to do it"
    place: str
    right: str
    role: str
    roles: str
    user: str
    who: str


class TokenTooNarrowError(RightMissingError):
    """Who made the token gave it less than the user may."""

    code = "operator.token_too_narrow"
    message = "This token has no right to {right} at {place}"
    cause = "This token of {user} goes less far than other tokens may: it may not {right} at {place}, which this needs."
    fix = "Take one that goes further: `birthmark token create --user {user} --role {role} --at {place}`"
    for_a_person = "somebody else has to do it"


class NarrowedTokenError(ForbiddenError):
    """A token that goes less far, or ends sooner, than its user's sign-in makes nothing that stays without it."""

    code = "people.token_narrowed"
    cause = (
        "The request came with a token that goes less far than its user does, or ends sooner than a sign-in: it makes "
        "and removes no other token, gives no role, approves nothing, ends no session, shows no key, and makes nothing "
        "that stays but for one device: no access key, policy, CA, group, EST user, EST token of more than a day, role "
        "alias, template, stream, silence, rule, route, hub, webhook, invitation or password."
    )
    fix = "Do it where you are signed in yourself."
    for_a_person = "who is signed in has to do it"


def check_whole(caller: Caller) -> None:
    """Raise `NarrowedTokenError` for a token that goes less far, or ends sooner, than its user's sign-in."""
    if caller.is_narrowed:
        raise NarrowedTokenError


def demand(caller: Caller, right: Right, place: str) -> None:
    """Raise `RightMissingError` where the caller may not do that there."""
    if caller.rights.allow(right, place):
        return
    roles = roles_with(right)
    kind = TokenTooNarrowError if caller.is_bound else RightMissingError
    raise kind(
        user=caller.user or "NAME",
        place=place,
        right=right.value,
        role=roles[0].value,
        roles=" or ".join(roles),
        who=caller.user or "Whoever asks",
    )


def said(error: BirthmarkError) -> str:
    """Return what the vendors' programs show of a refusal: a person who may not is told what to do about it, too."""
    return f"{error}. {error.explain_fix()}" if isinstance(error, RightMissingError) else str(error)
