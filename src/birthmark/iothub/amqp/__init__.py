"""IoT Hub over AMQP 1.0: the Event Hubs-compatible endpoint, messages of services to devices, and devices.

    connection              one connection: SASL, claims, and which handler has which link
    node_requests           requests to `$cbs` and `$management`
    partition_reader_links  readers of partitions: groups, limits, exclusive readers, start positions
    event_reader            sends a partition's events at the speed of a link's credit
    shared_watch            one watch for all links that wait for the same messages
    c2d_links               cloud-to-device messages and their feedback
    connection_devices      the devices of one connection: tokens, and gateways that connect devices below them
    device                  one device: its session at the hub, and its links
    telemetry_link          telemetry, accepted when it is durable
    device_c2d_link         messages to the device, settled by its outcome
    device_requests         pairs of links for twin requests and for direct methods
    error_conditions        AMQP conditions of refusals

Not here: frames and links (`amqp`), and what devices of every protocol share (`connections`).
"""

from birthmark.iothub.amqp.connection import HubAmqpConnections

__all__ = ["HubAmqpConnections"]
