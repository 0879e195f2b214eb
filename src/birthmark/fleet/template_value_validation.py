"""Validation of a device's settings, filled from a list by a template, before a cloud request."""

from birthmark.awsiot.model import AttributeInvalidError, parse_attributes
from birthmark.documents.document_limits import DocumentProblem, check, check_size
from birthmark.errors import InvalidRequestError
from birthmark.fleet.enrollment_target import EnrollmentRequest
from birthmark.iothub.rules.twins import PROPERTIES, TAGS

_LETTERS = "letters from a to z, digits and _ . , @ / : # = [ ] -, and no spaces"


class ValueNotAllowedError(InvalidRequestError):
    """The template's result is not valid at the cloud."""

    code = "enroll.value_not_allowed"
    cause = "{cloud} does not accept the value that the template generates for {device}: {detail}."
    fix = (
        "Correct the value in the device list, or remove the field from the template. To print the permitted values: "
        "`birthmark device template`"
    )
    cloud: str
    detail: str
    device: str


def check_values(request: EnrollmentRequest, *, is_azure: bool) -> None:
    """Raise `ValueNotAllowedError`, also in a dry run."""
    try:
        if is_azure:
            for name, part, shape in (
                ("azure.tags", request.tags, TAGS),
                ("azure.desired", request.desired, PROPERTIES),
            ):
                check_size(check(dict(part), shape, path=name), shape, path=name)
        else:
            parse_attributes(request.attributes)
    except DocumentProblem as problem:
        raise ValueNotAllowedError(cloud="Azure", device=request.device_id, detail=str(problem)) from problem
    except AttributeInvalidError as error:
        detail = f"{error.facts['detail']} of aws.attributes, which have {_LETTERS}"
        raise ValueNotAllowedError(cloud="AWS IoT", device=request.device_id, detail=detail) from error
