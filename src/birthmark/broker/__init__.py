"""Sessions, subscriptions, queues, retained messages: one core for every cloud.

A cloud opens a `Namespace` for each account or hub, with its limits, and gives it the connections of its clients; it
decides what they may do, and how it looks on the wire. Sessions that outlive their connections, and what waits for
them, are rows; everything else is in memory. Nothing is acknowledged before it is as safe as it has to be.

Pure are `model` and `rules`; the rest is what reads, writes and waits.

Not here: topics and limits of a cloud, policies, packets (the rooms of the clouds).
"""

from birthmark.broker.broker import Broker
from birthmark.broker.connected_session import ConnectedSession
from birthmark.broker.namespace import Arrival, Namespace
from birthmark.broker.rules.quotas import SpaceRules

__all__ = ["Arrival", "Broker", "ConnectedSession", "Namespace", "SpaceRules"]
