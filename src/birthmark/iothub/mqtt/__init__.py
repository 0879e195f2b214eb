"""IoT Hub over MQTT 3.1.1: CONNECT, single connections, and telemetry.

    admission         decides on CONNECT
    connection        one connection of a device or module
    c2d_receiver      sends messages of the device queue as PUBLISH
    telemetry_window  telemetry that is not yet durable

Not here: packets (`mqtt`), and what connections of every protocol share (`connections`).
"""

from birthmark.iothub.mqtt.admission import MqttAdmission

__all__ = ["MqttAdmission"]
