"""MQTT broker core for every cloud: sessions, subscriptions, queues and retained messages.

Each AWS account or Azure hub opens a `Namespace` with its limits and passes client connections to it. The cloud's
package handles authorization and the wire format. Persistent sessions and their queued messages are database rows;
everything else is in memory. A message is acknowledged only after it meets its durability requirement.

`model` and `rules` are pure; the other modules do I/O and wait.

Topics, limits, policies and packets are in the cloud packages.
"""

from birthmark.broker.connected_session import ConnectedSession
from birthmark.broker.namespace_sessions import Arrival, Namespace
from birthmark.broker.rules.principal_quotas import SpaceRules
from birthmark.broker.worker_broker import Broker

__all__ = ["Arrival", "Broker", "ConnectedSession", "Namespace", "SpaceRules"]
