"""Azure IoT Hub, as its unmodified SDKs see it.

Specification: IoT Hub MQTT support and REST reference (api-version 2021-04-12; others are accepted).

| endpoint | served |
|---|---|
| MQTT CONNECT `{host}/{deviceId}[/{moduleId}]/?…` | X.509 by thumbprint or CA, SAS; one connection for each |
| `devices/{id}/messages/events/{bag}` | telemetry, acknowledged when durable; as a will too |
| `$iothub/twin/…`, `$iothub/methods/…`, `devices/{id}/messages/devicebound/#` | twin, direct methods, messages |
| `$iothub/credentials/POST/issueCertificate/` | a certificate in the place of the one in use |
| subscriptions | kept over reconnects when clean session is 0 |
| `/devices`, `/devices/{id}`, `/devices/{id}/modules`, `/statistics/…` | identity registry, SAS by policy |
| `/twins/{id}`, `/twins/{id}/methods`, `POST /devices/{id}/messages/deviceBound` | the service's side of them |
| `POST /devices/query` | queries of twins, by an index of all their values |
| `POST /devices/{id}/messages/events`, `GET` and more of `…/deviceBound` | a device without MQTT |

Not served yet: jobs, AMQP. A publish to a topic that is not served closes the connection, as the real
hub does for a topic it does not know, and `birthmark why` names it.
"""
