"""What somebody may not do, said so that he knows whom to ask for what."""

from birthmark.auth.principals import Caller
from birthmark.auth.rights import Right
from birthmark.errors import ForbiddenError
from birthmark.people.model import roles_with


class RightMissingError(ForbiddenError):
    """The caller may look, or operate, and asks for more."""

    code = "operator.role_too_low"
    message = "This needs the right to {right} at {place}"
    cause = "{who} may not {right} at {place}, which this needs."
    fix = "Ask an admin for a role that has it, {roles}: `birthmark role grant {name} {role} --at {place}`"
    for_a_person = "somebody else has to do it"
    name: str
    place: str
    right: str
    role: str
    roles: str
    who: str


def demand(caller: Caller, right: Right, place: str) -> None:
    """Raise `RightMissingError` where the caller may not do that there."""
    if caller.rights.allow(right, place):
        return
    roles = roles_with(right)
    raise RightMissingError(
        name=caller.user or "NAME",
        place=place,
        right=right.value,
        role=roles[0].value,
        roles=" or ".join(roles),
        who="This token" if caller.is_narrowed else (caller.user or "Whoever asks"),
    )
