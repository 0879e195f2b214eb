"""Azure IoT Hub for its unmodified SDKs.

Specification: IoT Hub MQTT support and REST reference (api-version 2021-04-12; others are accepted).

| endpoint | served |
|---|---|
| MQTT CONNECT `{host}/{deviceId}[/{moduleId}]/?…` | X.509 by thumbprint or CA, SAS; one connection per identity |
| `devices/{id}/messages/events/{bag}` | telemetry, acknowledged when durable; also as a will |
| `$iothub/twin/…`, `$iothub/methods/…`, `devices/{id}/messages/devicebound/#` | twin, direct methods, messages |
| AMQP links `/devices/{id}[/modules/{m}]/…`, `$cbs` | the same for devices and modules, many on one connection |
| `$iothub/credentials/POST/issueCertificate/` | a certificate that replaces the current one |
| subscriptions | kept over reconnects when clean session is 0 |
| `/devices`, `/devices/{id}`, `/devices/{id}/modules`, `/statistics/…` | identity registry, SAS by policy |
| `/twins/{id}`, `/twins/{id}/methods`, `POST /devices/{id}/messages/deviceBound` | the service side of them |
| `POST /devices/query` | twin queries, by an index of all twin values |
| `POST /devices/{id}/messages/events`, `GET` and more of `…/deviceBound` | a device without MQTT |

Not served yet: jobs. A publish to an unsupported topic closes the connection, as IoT Hub does for an unknown
topic, and `birthmark why` reports it.
"""
