"""Live connections of devices to hubs, over any protocol.

    device_connections         admission, presence, and the end of connections whose device or credentials changed
    device_connection          what a connection of a device provides, whatever its protocol
    c2d_delivery               messages from the device queue to a connection
    twin_requests              twin requests of a device
    direct_methods             calls that wait for the response of a device on this worker
    cross_worker_device_calls  calls and notifications to a device on any worker

Not here: packets, frames and links (`mqtt`, `amqp`).
"""

from birthmark.iothub.connections.cross_worker_device_calls import DevicesByBus
from birthmark.iothub.connections.device_connection import DeviceConnection
from birthmark.iothub.connections.device_connections import HubConnections

__all__ = ["DeviceConnection", "DevicesByBus", "HubConnections"]
