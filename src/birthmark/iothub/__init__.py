"""Azure IoT Hub, as its unmodified SDKs see it.

Specification: IoT Hub MQTT support and REST reference (api-version 2021-04-12; others are accepted).

| endpoint | served |
|---|---|
| MQTT CONNECT `{host}/{deviceId}/?…` | X.509 by thumbprint, SAS by device key; one connection per device |
| `devices/{id}/messages/events/{bag}` | telemetry, acknowledged when durable |
| subscriptions | kept over reconnects when clean session is 0 |
| `/devices`, `/devices/{id}`, `/statistics/devices` | identity registry, SAS by policy |

Not served yet: twins, methods, cloud-to-device messages, modules, AMQP. A publish to one of their topics closes the
connection, as the real hub does for a topic it does not know, and `birthmark why` names it.
"""
