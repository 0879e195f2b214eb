"""P13 to P17: messages of QoS 1 from 100 connections to a subscriber, and from one connection to a thousand.

Counted where they arrive: a round ends when every message was delivered and acknowledged both ways.
"""

from typing import ClassVar

import boto3
import peers
from botocore.config import Config
from crowd import Crowd, Sink
from rig import Device, Rig, cpu_us_each
from swarm import Broker

from measures.measure import Measure, Sample
from support.aws.device import document, statement
from support.server.servers import RunningServer

PUBLISHERS, SUBSCRIBERS = 100, 1000


class _ToOne(Measure):
    """A hundred publish to topics of their own, one subscribes to all of them."""

    unit, peer = "us", "mosquitto"
    in_flight: ClassVar[int]
    rounds: ClassVar[int]
    is_clean: ClassVar[bool]

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        ours, theirs = brokers(rig)
        self._pids = rig.server.pid, rig.once("mosquitto", peers.mosquitto).pid
        device = rig.once("device of AWS", registered_at_aws)
        self._sides = [
            (
                rig.once(f"crowd at {name}", lambda _rig, at=at: Crowd(at, [device] * PUBLISHERS, "bench")),
                rig.once(
                    f"sink {self.is_clean} at {name}",
                    lambda _rig, at=at: Sink(
                        at, device, f"sink-{self.is_clean}", f"bench-{self.is_clean}/+", clean=self.is_clean
                    ),
                ),
            )
            for name, at in (("ours", ours), ("mosquitto", theirs))
        ]

    def round(self) -> Sample:
        costs = []
        for pid, (crowd, sink) in zip(self._pids, self._sides, strict=True):
            costs.append(
                cpu_us_each(
                    pid,
                    lambda crowd=crowd, sink=sink: crowd.publish(
                        self.in_flight, self.rounds, [sink], f"bench-{self.is_clean}"
                    ),
                )
            )
        return Sample(*costs)


class LiveOne(_ToOne):
    """Nothing of it is stored."""

    name, title, gate, aim = "P13", "QoS 1 to a live subscriber, 100 publishers, 1 in flight", 0.9, 0.7
    in_flight, rounds, is_clean = 1, 100, True


class LiveTen(_ToOne):
    """Nothing of it is stored."""

    name, title, gate, aim = "P14", "the same, 10 in flight", 0.4, 0.3
    in_flight, rounds, is_clean = 10, 30, True


class StoredOne(_ToOne):
    """Each message is durable in the session's queue before its publisher is answered."""

    name, title, gate, aim = "P15", "QoS 1 to a stored session, durable, 1 in flight", 2.5, 1.8
    in_flight, rounds, is_clean = 1, 60, False


class StoredTen(_ToOne):
    """Each message is durable in the session's queue before its publisher is answered."""

    name, title, gate, aim = "P16", "the same, 10 in flight", 0.8, 0.5
    in_flight, rounds, is_clean = 10, 20, False


class OneToMany(Measure):
    """One publishes, a thousand clean sessions get each message."""

    name, title, peer = "P17", "1 publisher to 1,000 subscribers, for each delivery", "mosquitto"
    unit, gate, aim = "us", 1.2, 0.9

    def __init__(self, rig: Rig) -> None:
        ours, theirs = brokers(rig)
        device = rig.once("device of AWS", registered_at_aws)
        self._sides = [
            (
                pid,
                Crowd(at, [device], "one"),
                [Sink(at, device, f"many-{number}", "many/#", clean=True) for number in range(SUBSCRIBERS)],
            )
            for pid, at in ((rig.server.pid, ours), (rig.once("mosquitto", peers.mosquitto).pid, theirs))
        ]

    def round(self) -> Sample:
        costs = []
        for pid, crowd, sinks in self._sides:
            costs.append(
                cpu_us_each(pid, lambda crowd=crowd, sinks=sinks: crowd.publish(1, 10, sinks, "many") * SUBSCRIBERS)
            )
        return Sample(*costs)


def brokers(rig: Rig) -> tuple[Broker, Broker]:
    """Return ours and mosquitto."""
    other = rig.once("mosquitto", peers.mosquitto)
    return Broker(rig.server.address, 8883), Broker(other.address, other.port)


def registered_at_aws(rig: Rig, server: RunningServer | None = None) -> Device:
    """Make one device that may do everything, under any client id."""
    server = server or rig.server
    device = rig.devices(1, "aws")[0]
    aws = server.endpoints["aws"]
    client = boto3.client(
        "iot",
        endpoint_url=aws["endpoint_url"],
        region_name=aws["region"],
        aws_access_key_id=aws["access_key_id"],
        aws_secret_access_key=aws["secret_access_key"],
        verify=server.endpoints["trust_bundle"],
        config=Config(retries={"max_attempts": 1}),
    )
    pem = (rig.directory / "device.pem").read_text().partition("-----BEGIN PRIVATE")[0]
    registered = client.register_certificate_without_ca(certificatePem=pem, status="ACTIVE")
    client.create_policy(policyName="bench", policyDocument=document(statement("iot:*")))
    client.attach_policy(policyName="bench", target=registered["certificateArn"])
    return device
