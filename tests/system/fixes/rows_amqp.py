"""Back ends and devices that break AMQP, or want what a hub does not have."""

import base64
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from fixes.desk import Desk, RefusedError, Row, typing
from fixes.rows_azure import enrolled, in_hub

from birthmark.amqp.composite import decode_composite, encode_composite
from birthmark.amqp.framer import SASL_FRAME, SASL_HEADER, AmqpFramer, encode_frame
from birthmark.amqp.message import AmqpMessage, MessageProperties, read_message
from birthmark.amqp.performatives import Source, Transfer
from birthmark.amqp.sasl import SaslInit, SaslOutcome
from birthmark.amqp.values import Symbol
from birthmark.auth.sas import hmac_sha256, render_sas
from support.azure.raw_back_end import RawBackEnd

_HELD: list[RawBackEnd] = []
"""Lines that stay open while another one is refused."""


def connected(desk: Desk) -> RawBackEnd:
    known = desk.scene.environment
    device = desk.device
    identity = None if device is None else (device.certificate_file, device.key_file)
    return RawBackEnd(desk.server.address, known["SSL_CERT_FILE"], known["EVENT_HUB_CONNECTION_STR"], identity=identity)


def sending(name: str, payload: bytes) -> Callable[[Desk], object]:
    """Send telemetry as a device."""

    def send(desk: Desk) -> None:
        with connected(desk) as device:
            device.transfer(device.attach(f"devices/{name}/messages/events", receives=False), payload)
            while True:
                device.next()

    return send


def asking_twin(name: str) -> Callable[[Desk], object]:
    """Send a twin request without an operation, and raise its response."""

    def ask(desk: Desk) -> None:
        with connected(desk) as device:
            device.attach(f"devices/{name}/twin")
            requests = device.attach(f"devices/{name}/twin", receives=False)
            device.transfer(requests, AmqpMessage(None))
            while not isinstance((found := device.next())[0], Transfer):
                pass
            raise RefusedError(str(read_message(found[1])))

    return ask


def plain_as(user: str) -> Callable[[Desk], object]:
    """Connect by SASL PLAIN with the token of another device."""

    def connect(desk: Desk) -> None:
        host = desk.scene.environment["PROVISIONING_HOST"]
        text = render_sas(f"{host}/devices/fix-owner", hmac_sha256(b"k" * 32), datetime.now(UTC) + timedelta(hours=1))
        init = SaslInit("PLAIN", f"\0{user}\0{text}".encode())
        with desk.tls(5671) as line:
            line.sendall(SASL_HEADER + encode_frame(0, encode_composite(init), SASL_FRAME))
            framer, is_header = AmqpFramer(), True
            while data := line.recv(4096):
                framer.receive_data(data)
                is_header = is_header and framer.next_header() is None
                while not is_header and (frame := framer.next_frame()) is not None:
                    found = decode_composite(frame.body)[0]
                    if isinstance(found, SaslOutcome) and found.code:
                        raise RefusedError(str(found))

    return connect


def many_node_links(desk: Desk) -> None:
    with connected(desk) as back_end:
        back_end.claim()
        while True:
            back_end.attach("$cbs")


def chain(text: str) -> dict[str, Any]:
    return {"properties": {Symbol("com.microsoft:auth-chain"): text}}


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


def presenting(count: int) -> Callable[[Desk], object]:
    """Present tokens of the policy that connects devices."""

    def present(desk: Desk) -> None:
        done = desk.scene.type("birthmark hub key --policy device --json")
        known = json.loads(done.stdout)
        host = desk.scene.environment["PROVISIONING_HOST"]
        key = base64.b64decode(known["primary_key"])
        text = render_sas(host, hmac_sha256(key), datetime.now(UTC) + timedelta(hours=1), "device")
        claiming(count, text)(desk)

    return present


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
    "iothub.amqp_address_unknown": Row(attaching("nowhere/at/all"), is_instead=True),
    "iothub.telemetry_amqp_invalid": Row(sending("fix-amqp", b"garbage"), in_hub("fix-amqp"), is_instead=True),
    "iothub.device_amqp_request_invalid": Row(asking_twin("fix-amqp-twin"), in_hub("fix-amqp-twin"), is_instead=True),
    "iothub.device_chain_invalid": Row(
        attaching("devices/fix-below/messages/events", receives=False, **chain("fix-below;fix-edge")),
        typing("birthmark hub device create fix-below"),
        is_instead=True,
    ),
    "iothub.too_many_device_tokens": Row(presenting(1101), is_instead=True),
    "iothub.too_many_node_links": Row(many_node_links, is_instead=True),
    "iothub.plain_user_mismatch": Row(
        plain_as("fix-another@sas.birthmark"), typing("birthmark hub device create fix-another"), is_instead=True
    ),
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
