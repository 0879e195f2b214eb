"""Shadows and retained messages at AWS IoT, asked for by an SDK."""

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import boto3
from botocore.config import Config
from fixes.desk import Desk, Row, a_publish, steps
from fixes.rows_aws_devices import allowed, saying
from fixes.rows_first_contact import Asking


def ask(operation: str, **arguments: Any) -> Callable[[Desk], Any]:
    """Return an action of the SDK on the data plane."""

    def act(desk: Desk) -> Any:
        known = desk.scene.environment
        data = boto3.client(
            "iot-data",
            endpoint_url=known["AWS_ENDPOINT_URL_IOT_DATA_PLANE"],
            region_name=known["AWS_REGION"],
            aws_access_key_id=known["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=known["AWS_SECRET_ACCESS_KEY"],
            verify=known["AWS_CA_BUNDLE"],
            config=Config(retries={"total_max_attempts": 1}),
        )
        return getattr(data, operation)(**arguments)

    return act


def update(thing: str, payload: bytes) -> Callable[[Desk], Any]:
    return ask("update_thing_shadow", thingName=thing, payload=payload)


def state(**more: Any) -> bytes:
    return json.dumps({"state": {"reported": {"a": 1}}, **more}).encode()


def unregistered(desk: Desk) -> None:
    """Report as many shadows of things that nobody registered as one device may, and one more."""
    topics = [f"$aws/things/fix-none-{number}/shadow/update" for number in range(2001)]
    saying(*(a_publish(topic, state()) for topic in topics[:-1]), client_id="fix-unregistered")(desk)
    with contextlib.closing(Asking(desk, "fix-unregistered")) as asking:
        asking.ask(topics[-1], json.loads(state()))


SHADOWS: Mapping[str, Row] = {
    "awsiot.shadow_share_used": Row(unregistered, allowed("fix-unregistered")),
    "awsiot.shadow_encoding": Row(update("fix-encoding", state().replace(b"1", b'"\xff"')), is_instead=True),
    "awsiot.shadow_invalid": Row(update("fix-invalid", b'{"desired": {"on": true}}'), is_instead=True),
    "awsiot.shadow_missing": Row(ask("delete_thing_shadow", thingName="fix-shadow", shadowName="config")),
    "awsiot.shadow_too_large": Row(
        update("fix-large", state().replace(b"1", b'"' + b"x" * 9000 + b'"')),
        update("fix-large", state()),
        is_instead=True,
    ),
    "awsiot.too_many_shadows": Row(
        ask("update_thing_shadow", thingName="fix-many", shadowName="one-more", payload=state()),
        steps(
            *(
                ask("update_thing_shadow", thingName="fix-many", shadowName=f"s{number}", payload=state())
                for number in range(100)
            )
        ),
        is_instead=True,
    ),
    "awsiot.shadow_version": Row(
        update("fix-shadow-version", state(version=7)), update("fix-shadow-version", state()), is_instead=True
    ),
    "awsiot.unknown_client": Row(ask("get_connection", clientId="fix-nobody"), is_instead=True),
    "awsiot.retained_missing": Row(ask("get_retained_message", topic="fix/retained")),
}
