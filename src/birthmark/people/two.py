"""Of two people who agree, neither may be the other."""

from birthmark.auth.principals import Caller
from birthmark.errors import ForbiddenError

BY_MACHINE = "operator"


class SamePersonError(ForbiddenError):
    """Who asked for it cannot be the second one."""

    code = "people.same_person"
    cause = "{user} asked for it, and it takes a second person."
    fix = "Ask somebody else who may {right} at {place}."
    for_a_person = "it takes another person"
    place: str
    right: str
    user: str


class LetInByPersonError(ForbiddenError):
    """Whoever lets others in could be all of them: of two, each must have been invited on the server's machine."""

    code = "people.let_in_by_person"
    cause = "{who} was let in by {by}, by an invitation or a token: of two who agree, one person could be both."
    fix = "Have {who} invited on the server's machine itself: `birthmark user invite {who}`"
    for_a_person = "somebody on the server's machine has to do it"
    by: str
    who: str


def check_invited(caller: Caller) -> None:
    """Raise `LetInByPersonError` for who was let in by somebody else than whoever holds the data directory."""
    if caller.user is not None and caller.let_in_by != BY_MACHINE:
        raise LetInByPersonError(who=caller.user, by=caller.let_in_by)
