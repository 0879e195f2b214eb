"""Selection of the transport adapter for a device's key."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import assert_never

from birthmark.clock_and_entropy import Clock
from birthmark.device_transports.identity_and_trust import FileIdentity, Identity, ServerTrust, TokenIdentity
from birthmark.device_transports.openssl.https import OpensslHttps
from birthmark.device_transports.openssl.mqtt import OpensslMqtt
from birthmark.device_transports.ports import HttpsClient, Links, MqttClient


@dataclass(frozen=True, slots=True)
class _Links:
    """Clients of one identity.

    Clients read a key file for each connection, so no secret is cached. A token must stay open while its `Links` are
    used.
    """

    https: Callable[[], HttpsClient]
    mqtt: Callable[[], MqttClient]


def open_links(identity: Identity | None, trust: ServerTrust, clock: Clock) -> Links:
    """Return the transports for an identity; None connects without a client certificate."""
    match identity:
        case None | FileIdentity():
            return _Links(partial(OpensslHttps, identity, trust), partial(OpensslMqtt, identity, trust, clock))
        case TokenIdentity():
            # Late import: the native library loads slowly, and file keys do not need it.
            from birthmark.device_transports.crt import https, mqtt  # noqa: PLC0415 - optional extra

            return _Links(partial(https.CrtHttps, identity, trust), partial(mqtt.CrtMqtt, identity, trust))
        case _:
            assert_never(identity)
