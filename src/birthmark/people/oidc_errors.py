"""What is refused where people sign in by a provider."""

from birthmark.errors import ForbiddenError, NotFoundError, UnauthenticatedError, UnavailableError


class ProviderUnknownError(NotFoundError):
    """No provider of this name."""

    code = "people.provider_unknown"
    message = "There is no provider {name}"
    cause = "The configuration has no [oidc.{name}]."
    fix = "Sign in at the page /signin, which shows those there are."
    for_a_person = "it takes whoever sits at the browser"
    name: str


class ProviderAwayError(UnavailableError):
    """The provider cannot be asked, or does not answer as one."""

    code = "people.provider_away"
    cause = "{name} ({issuer}) cannot be asked who somebody is: {reason}."
    fix = "See whether it is there from the server's machine: `curl -sS {issuer}/.well-known/openid-configuration`"
    for_a_person = "it is another's server"
    issuer: str
    name: str
    reason: str


class ProviderRefusedError(UnauthenticatedError):
    """What came back from the provider proves nothing."""

    code = "people.provider_refused"
    message = "{name} did not say who you are"
    cause = "What came back from {name} was not taken: {detail}."
    fix = "Begin again, at the page /signin. Where it stays so, compare [oidc.{name}] with what is on record there."
    for_a_person = "it takes whoever sits at the browser"
    detail: str
    name: str


class NobodyOnRecordError(ForbiddenError):
    """The provider knows somebody whom nobody put on record here."""

    code = "people.provider_nobody"
    message = "You are not on record here"
    cause = "{name} knows who you are, and nobody has put that one on record here: {detail}."
    fix = "Ask an admin for an invitation, `birthmark user invite NAME`, and use {name} on the page that it leads to."
    for_a_person = "somebody else has to do it"
    detail: str
    name: str
