"""Retained messages, as they are asked for by their topic."""

from birthmark.errors import NotFoundError


class RetainedMissingError(NotFoundError):
    """No message is retained there."""

    code = "awsiot.retained_missing"
    message = "No retained message for topic {topic}"
    cause = "Nothing is retained for the topic {topic}: no message with the retain flag came, or it expired."
    fix = (
        "`aws iot-data publish --topic {topic} --qos 1 --retain --payload aGVsbG8=` retains one; `aws iot-data "
        "list-retained-messages` shows what there is."
    )
    topic: str
