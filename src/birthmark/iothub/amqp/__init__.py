"""IoT Hub over AMQP 1.0: the Event Hubs-compatible endpoint of each hub."""

from birthmark.iothub.amqp.connection import HubAmqpConnections

__all__ = ["HubAmqpConnections"]
