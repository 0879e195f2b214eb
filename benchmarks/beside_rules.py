"""Measure how long a PUBACK takes while a rule on `#` sees everything that others publish as fast as they can.

    .venv/bin/python benchmarks/beside_rules.py [--rounds N]

Others publish by QoS 1, ten messages in flight each, on the last core; the rule selects all of it and republishes it.
Another device publishes one message at a time: what its PUBACK takes is printed, with the rule and without.
"""

import argparse
import multiprocessing
import os
import time
from multiprocessing.synchronize import Event
from typing import Any

from crowd import Crowd, open_client
from measures.fan_out import registered_at_aws
from measures.rules import _iot
from rig import CLIENT_CORE, Device, Rig, a_rig
from swarm import PAYLOAD, Broker

from birthmark.mqtt import codec
from birthmark.mqtt.packets import Publish

PUBLISHERS, IN_FLIGHT, MESSAGES = 20, 10, 600
_PUBACK_BYTES = 4
_RULE: dict[str, Any] = {
    "sql": "SELECT *, topic() AS topic FROM '#' WHERE temperature > 0",
    "actions": [{"republish": {"topic": "log", "roleArn": "arn:aws:iam::000000000000:role/bench"}}],
    "awsIotSqlVersion": "2016-03-23",
}


def flood(broker: Broker, device: Device, over: Event) -> None:
    """Publish as fast as it is acknowledged."""
    os.sched_setaffinity(0, {CLIENT_CORE})
    crowd = Crowd(broker, [device] * PUBLISHERS, "flood")
    while not over.is_set():
        crowd.publish(IN_FLIGHT, 5, [], "flood")


def latencies(broker: Broker, device: Device, name: str) -> list[float]:
    """Return how many ms each PUBACK took, sorted."""
    sock = open_client(broker, device, name, clean=True)
    took = []
    for _ in range(MESSAGES):
        message = codec.encode(Publish(f"quiet/{name}", PAYLOAD, 1, packet_id=1))
        began = time.perf_counter()
        sock.sendall(message)
        assert len(sock.recv(_PUBACK_BYTES)) == _PUBACK_BYTES
        took.append((time.perf_counter() - began) * 1000)
        time.sleep(0.005)
    sock.close()
    return sorted(took)


def told(took: list[float]) -> str:
    """Return the median, the 99th of a hundred, and the longest."""
    return f"{took[len(took) // 2]:7.2f} {took[len(took) * 99 // 100]:7.2f} {took[-1]:7.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with a_rig() as rig:
        measure(rig, given.rounds)


def measure(rig: Rig, rounds: int) -> None:
    """Print a line for each round."""
    iot, device = _iot(rig), registered_at_aws(rig)
    broker, over = Broker(rig.server.address, 8883), multiprocessing.get_context("fork").Event()
    crowd = multiprocessing.get_context("fork").Process(target=flood, args=(broker, device, over), daemon=True)
    crowd.start()
    time.sleep(2)
    print("PUBACK p50, p99, longest in ms: without the rule | with it")
    for number in range(rounds):
        without = latencies(broker, device, f"without-{number}")
        iot.create_topic_rule(ruleName="all", topicRulePayload=_RULE)
        beside = latencies(broker, device, f"with-{number}")
        iot.delete_topic_rule(ruleName="all")
        print(f"{told(without)} | {told(beside)}", flush=True)
    over.set()
    crowd.join(20)


if __name__ == "__main__":
    main()
