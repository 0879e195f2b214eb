"""What a device is told by CONNACK: 5 ends a session of the Python SDK for good, 3 is tried again."""

from birthmark.broker.errors import SessionTakenError
from birthmark.iothub.error_mapping import connack_reason
from birthmark.mqtt.reason_codes import RETURN_CODES


def test_who_came_while_another_did_by_its_name_may_come_again() -> None:
    assert RETURN_CODES[connack_reason(SessionTakenError(client="pump"))] == 3
