"""The swarm's adapters of the links, under the contract that all of them keep."""

from dataclasses import dataclass
from pathlib import Path

from birthmark.clock_and_entropy import SystemClock
from birthmark.device_transports.identity_and_trust import FileIdentity, Identity, ServerTrust
from birthmark.device_transports.ports import HttpsClient, Links, MqttClient
from birthmark.device_transports.transport_selection import open_links
from birthmark.swarm.links.https import SwarmHttps
from birthmark.swarm.links.low_memory_tls_stream import Dialer
from birthmark.swarm.links.mqtt import SwarmMqtt


@dataclass(frozen=True)
class SwarmIdentity(FileIdentity):
    """Key and chain in one file."""

    pem: Path = Path()


@dataclass(frozen=True)
class SwarmLinks:
    """One device's."""

    dialer: Dialer
    pem: Path

    def https(self) -> HttpsClient:
        return SwarmHttps(self.dialer, self.pem)

    def mqtt(self) -> MqttClient:
        return SwarmMqtt(self.dialer, self.pem, keeps=True)


def links_of(identity: Identity | None, trust: ServerTrust) -> Links:
    """Return links that fit this identity."""
    if isinstance(identity, SwarmIdentity):
        return SwarmLinks(Dialer(trust), identity.pem)
    return open_links(identity, trust, SystemClock())
