"""AWS IoT Core, as its unmodified SDKs and CLI see it: one account, any region.

Specification: the service models `iot` 2015-05-28 and `iot-data`; the AWS IoT Core developer guide for policies, topics
and limits.

| endpoint | served |
|---|---|
| HTTPS, signed (SigV4 `iot`) | things, their types and groups, certificates with and without CA, CA certificates, \
custom authorizers, role aliases, policies with versions, attachments, TestAuthorization, tags, search, \
DescribeEndpoint |
| `POST /topics/{topic}` | publish, signed (`iotdata`, `iotdevicegateway`) or with a client certificate |
| MQTT 3.1.1 and 5 on 8883, or 443 with ALPN `x-amzn-mqtt-ca` | a registered, active certificate; its policies decide |
| MQTT by ALPN `mqtt`, WebSocket `/mqtt`, HTTPS | what a custom authorizer's function lets in |
| WebSocket `/mqtt`, presigned (`iotdevicegateway`) | MQTT 3.1.1 and 5; an access key's policy decides, if it has one |
| `GET /role-aliases/{alias}/credentials`, with a client certificate | a short-lived access key |
| HTTPS, signed (`iotdata`) or with a client certificate | shadows, retained messages |
| `$aws/things/{thing}/shadow/…` | classic and named shadows |
| `$aws/things/{thing}/jobs/…`; HTTPS, signed (`iot-jobs-data`) or with a client certificate | jobs of a device |
| HTTPS, signed (`iot`) | jobs, their executions and templates |
| `$aws/events/presence/…`, `subscriptions/…` | who comes and goes, and subscribes |
| HTTPS, signed (`iot`) | fleet indexing: SearchIndex, statistics, dynamic thing groups |
| HTTPS, signed (`iotdata`) | GetConnection, DeleteConnection, ListSubscriptions |
| `$aws/events/thing/…` and others | what becomes of the registry, as UpdateEventConfigurations says |

Everything else of the service model, and what an operation that is served would neither keep nor heed, is answered
501 NotImplementedException. Not served yet, and refused with a code of their own: commands, rules.

Refused connections are closed without CONNACK, and a denied publish or subscribe ends the connection, as AWS does;
`birthmark why` has the reason. Different from AWS: policies and certificate states take effect at the next packet and
not within minutes; SNI is not required of SNI_ONLY certificates; certificates that this server signs itself live no
longer than its CA.
"""
