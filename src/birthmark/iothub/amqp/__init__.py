"""IoT Hub over AMQP 1.0: the Event Hubs-compatible endpoint of each hub, and messages of services to devices.

    connection              one connection: SASL, claims, and which handler has which link
    node_requests           requests to `$cbs` and `$management`
    partition_reader_links  readers of partitions: groups, limits, exclusive readers, start positions
    event_reader            sends a partition's events at the speed of a link's credit
    shared_watch            one watch for all links that wait for the same messages
    c2d_links               cloud-to-device messages and their feedback
    error_conditions        AMQP conditions of refusals

Not here: frames and links (`amqp`), and devices over AMQP.
"""

from birthmark.iothub.amqp.connection import HubAmqpConnections

__all__ = ["HubAmqpConnections"]
