"""Which right an operation takes of a person, by its name in the service model. Access keys have all of them."""

from collections.abc import Mapping

from birthmark.auth.rights import Right

_LOOKS = ("Describe", "Get", "List", "Search")
_OTHERS: Mapping[str, Right] = {
    **dict.fromkeys(("Publish", "UpdateThingShadow", "DeleteThingShadow", "DeleteConnection"), Right.OPERATE),
    **dict.fromkeys(("UpdateCertificate", "DeleteCertificate"), Right.REVOKE),
    **dict.fromkeys(
        ("RegisterCACertificate", "UpdateCACertificate", "DeleteCACertificate", "DeleteRegistrationCode"), Right.TRUST
    ),
    **dict.fromkeys(
        ("CreatePolicy", "CreatePolicyVersion", "DeletePolicy", "DeletePolicyVersion", "SetDefaultPolicyVersion"),
        Right.ADMINISTER,
    ),
}
PLACE = "aws"


def right_for(operation: str) -> Right:
    """Return what it takes; whatever is no look and not listed puts something on record, or off."""
    return Right.READ if operation.startswith(_LOOKS) else _OTHERS.get(operation, Right.ENROLL)
