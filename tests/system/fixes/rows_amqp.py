"""Back ends that break AMQP, or want what a hub does not have, and devices that register."""

from collections.abc import Callable, Mapping
from typing import Any

from fixes.desk import Desk, Row, typing
from fixes.rows_azure import enrolled

from birthmark.amqp.message import AmqpMessage, MessageProperties
from birthmark.amqp.performatives import Source
from birthmark.amqp.values import Symbol
from support.azure.raw_back_end import RawBackEnd

_HELD: list[RawBackEnd] = []
"""Lines that stay open while another one is refused."""


def connected(desk: Desk) -> RawBackEnd:
    known = desk.scene.environment
    device = desk.device
    identity = None if device is None else (device.certificate_file, device.key_file)
    return RawBackEnd(desk.server.address, known["SSL_CERT_FILE"], known["EVENT_HUB_CONNECTION_STR"], identity=identity)


def partition(group: str = "$Default", number: int = 0) -> str:
    return f"birthmark/ConsumerGroups/{group}/Partitions/{number}"


def attaching(address: str, *, is_known: bool = True, **fields: Any) -> Callable[[Desk], object]:
    def attach(desk: Desk) -> None:
        with connected(desk) as back_end:
            (back_end.claim() if is_known else back_end).attach(address, **fields)

    return attach


def holding(count: int, address: str = "", **fields: Any) -> Callable[[Desk], object]:
    """Attach readers that stay."""

    def attach(desk: Desk) -> None:
        for _ in range(count):
            with connected(desk) as back_end:
                back_end.claim().attach(address or partition(), **fields)
                back_end.is_held = True
                _HELD.append(back_end)

    return attach


def claiming(count: int = 1, text: str = "", **asked: str) -> Callable[[Desk], object]:
    def claim(desk: Desk) -> None:
        with connected(desk) as back_end:
            asks = back_end.cbs()
            for number in range(count):
                given = {"operation": "put-token", "type": "jwt" if text else "x", "name": str(number)} | asked
                back_end.ask(asks, text or back_end.token, **given)

    return claim


def breaking(desk: Desk) -> None:
    with connected(desk) as back_end:
        back_end.send_bytes(b"\x00\x00\x00\x09\x02\x00\x00\x00\xff")
        while True:
            back_end.next()


def sending_nowhere(desk: Desk) -> None:
    with connected(desk) as back_end:
        link = back_end.claim().attach("messages/devicebound", receives=False)
        back_end.transfer(link, AmqpMessage(None, MessageProperties(to="/nowhere")))
        while True:
            back_end.next()


def registration(desk: Desk, name: str) -> str:
    return f"{desk.scene.environment['PROVISIONING_IDSCOPE']}/registrations/{name}"


def registering_as_another(desk: Desk) -> None:
    with connected(desk) as device:
        device.attach(registration(desk, "fix-amqp-link"))
        device.attach(registration(desk, "another"))


def registering_without_an_operation(desk: Desk) -> None:
    with connected(desk) as device:
        link = device.attach(registration(desk, "fix-amqp-request"), receives=False)
        device.transfer(link, AmqpMessage(None, MessageProperties(correlation_id="1")))
        while True:
            device.next()


def epoch(value: object) -> dict[str, Any]:
    return {"properties": {Symbol("com.microsoft:epoch"): value}}


_FILTER = {Symbol("apache.org:selector-filter:string"): "site = 'north'"}

AMQP: Mapping[str, Row] = {
    "dps.amqp_address_mismatch": Row(registering_as_another, enrolled("fix-amqp-link"), is_instead=True),
    "dps.amqp_request_invalid": Row(registering_without_an_operation, enrolled("fix-amqp-request"), is_instead=True),
    "amqp.protocol_error": Row(breaking, is_instead=True),
    "iothub.amqp_not_authorized": Row(attaching(partition(), is_known=False), is_instead=True),
    "iothub.amqp_token_type": Row(claiming(text="eyJ0eXAi"), is_instead=True),
    "iothub.amqp_request_invalid": Row(claiming(operation="take-token"), is_instead=True),
    "iothub.too_many_tokens": Row(claiming(101), is_instead=True),
    "iothub.amqp_address_unknown": Row(attaching("devices/fix/messages/devicebound"), is_instead=True),
    "iothub.event_hub_read_only": Row(attaching("birthmark", receives=False), is_instead=True),
    "iothub.entity_not_of_hub": Row(attaching("other/ConsumerGroups/$Default/Partitions/0"), is_instead=True),
    "iothub.default_consumer_group": Row(typing("birthmark hub consumer-group rm '$Default' --yes"), is_instead=True),
    "iothub.unknown_partition": Row(attaching(partition(number=9)), is_instead=True),
    "iothub.unknown_consumer_group": Row(attaching(partition("fix-group"))),
    "iothub.event_filter_invalid": Row(
        attaching(partition(), source=Source(partition(), filter=_FILTER)), is_instead=True
    ),
    "iothub.event_reader_invalid": Row(attaching(partition(), **epoch("x")), is_instead=True),
    "iothub.too_many_readers": Row(holding(1), holding(5), is_instead=True),
    "iothub.exclusive_reader": Row(
        attaching(partition(number=1)), holding(1, partition(number=1), **epoch(3)), is_instead=True
    ),
    "iothub.c2d_amqp_invalid": Row(sending_nowhere, is_instead=True),
    "iothub.consumer_group_name_invalid": Row(typing('birthmark hub consumer-group create "a b"'), is_instead=True),
    "iothub.too_many_consumer_groups": Row(
        typing("birthmark hub consumer-group create fix-more --hub fix-groups"),
        typing(
            "birthmark hub create fix-groups --host fix-groups.example",
            "for n in $(seq 19); do birthmark hub consumer-group create g$n --hub fix-groups; done",
        ),
        is_instead=True,
    ),
}
