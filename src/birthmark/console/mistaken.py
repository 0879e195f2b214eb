"""What a request to the operator interface got wrong, for the interface and for commands that ask by themselves."""

from birthmark.errors import InvalidRequestError


class OperatorRequestError(InvalidRequestError):
    """A request that no route takes as it is."""

    code = "operator.request_invalid"
    message = "The request is not valid: {detail}"
    cause = "The operator interface does not take the request: {detail}."
    fix = "Ask as docs/reference/operator-api.md says."
    for_a_person = "a program asked, and has to be changed"
    detail: str
