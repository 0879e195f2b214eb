"""IoT Hub over MQTT 3.1.1: connection registry, single connections, and a module for each feature."""

from birthmark.iothub.mqtt.admission_and_reauthentication import HubConnections
from birthmark.iothub.mqtt.cross_worker_device_calls import DevicesByBus

__all__ = ["DevicesByBus", "HubConnections"]
