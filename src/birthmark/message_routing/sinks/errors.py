"""Delivery errors."""

from birthmark.errors import InvalidRequestError, UnavailableError


class NotTakenError(UnavailableError):
    """The receiver did not accept a message."""

    code = "routing.not_taken"
    cause = "{receiver} did not accept a message: {reason}."
    fix = "Make the receiver available. The server retries for several minutes and then dead-letters the message."
    for_a_person = "the receiver is an external server"
    reason: str
    receiver: str
    is_final: bool = False
    """Whether the failure is permanent, so that no retry is made."""


class AddressInvalidError(InvalidRequestError):
    """The address from the rule's templates is not valid."""

    code = "routing.address_invalid"
    cause = "The address {receiver} of a message is not valid: {reason}."
    fix = "Correct the template in the rule's action that produced this address."
    for_a_person = "only the rule's author knows the intended address"
    reason: str
    receiver: str
    is_final: bool = True
