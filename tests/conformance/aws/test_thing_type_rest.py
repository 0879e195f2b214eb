"""A thing type is deleted five minutes after it was deprecated, by boto3 at a server whose clock goes on meanwhile."""

import pytest

from birthmark.testing.cloud import Cloud
from birthmark.testing.plugin import WrongClock
from support.server.scaled import for_one

pytestmark = pytest.mark.system


@for_one
def test_a_deprecated_thing_type_is_deleted_after_its_rest(birthmark_cloud: Cloud, wrong_clock: WrongClock) -> None:
    wrong_clock("-180s")  # as far as a signature may be
    iot = birthmark_cloud.boto3()
    iot.create_thing_type(thingTypeName="old")
    iot.deprecate_thing_type(thingTypeName="old")
    with pytest.raises(iot.exceptions.InvalidRequestException):
        iot.delete_thing_type(thingTypeName="old")
    wrong_clock("+180s")
    iot.delete_thing_type(thingTypeName="old")
    with pytest.raises(iot.exceptions.ResourceNotFoundException):
        iot.describe_thing_type(thingTypeName="old")
