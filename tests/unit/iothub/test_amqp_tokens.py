"""Claims-based security, the client's messages."""

import pytest

from birthmark.amqp.errors import AmqpError, AmqpErrorScope
from birthmark.amqp.message import AmqpMessage, MessageProperties, ValueBody, read_message, write_message
from birthmark.amqp.values import Int
from birthmark.iothub.wire.amqp_tokens import PutTokenAnswer, put_token_request, read_put_token_answer


def test_a_request_has_audience_type_token_and_reply_to() -> None:
    message = read_message(put_token_request("hub/devices/d1", "SharedAccessSignature sr=x", "m1", reply_to="cbs"))

    assert message.body == ValueBody("SharedAccessSignature sr=x")
    assert (message.properties.message_id, message.properties.reply_to) == ("m1", "cbs")
    assert message.application_properties == {
        "operation": "put-token",
        "type": "servicebus.windows.net:sastoken",
        "name": "hub/devices/d1",
    }


@pytest.mark.parametrize(("status", "is_ok"), [(200, True), (202, True), (401, False), (0, False)])
def test_an_answer_has_the_status_and_the_requests_id(status: int, *, is_ok: bool) -> None:
    payload = write_message(
        AmqpMessage(
            properties=MessageProperties(correlation_id="m1"),
            application_properties={"status-code": Int(status), "status-description": "told"},
        )
    )

    answer = read_put_token_answer(payload)

    assert answer == PutTokenAnswer("m1", status, "told")
    assert answer.is_ok is is_ok


def test_an_answer_without_a_status_is_not_ok() -> None:
    assert not read_put_token_answer(write_message(AmqpMessage())).is_ok


def test_bytes_that_are_no_message_are_an_error_of_the_delivery() -> None:
    with pytest.raises(AmqpError) as caught:
        read_put_token_answer(b"\x01")
    assert caught.value.scope is AmqpErrorScope.DELIVERY
