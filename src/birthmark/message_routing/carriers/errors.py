"""Why a letter did not arrive."""

from birthmark.errors import InvalidRequestError, UnavailableError


class NotTakenError(UnavailableError):
    """The receiver of a rule's message did not take it."""

    code = "routing.not_taken"
    cause = "{receiver} did not take a message: {reason}."
    fix = "Look at the receiver; what was sent is sent again for some minutes, and then put aside."
    for_a_person = "it is another's server"
    reason: str
    receiver: str
    is_final: bool = False
    """No further try is made: it will never be taken."""


class AddressInvalidError(InvalidRequestError):
    """Where a message was to go, as the rule's templates made it, is no place."""

    code = "routing.address_invalid"
    cause = "A message was to go to {receiver}: {reason}."
    fix = "Correct the template of the rule's action, which made this of the message."
    for_a_person = "only who wrote the rule knows where it was to go"
    reason: str
    receiver: str
    is_final: bool = True
