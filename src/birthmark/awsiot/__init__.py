"""AWS IoT Core, compatible with unmodified SDKs and the CLI: one account, any region.

Specification: the service models `iot` 2015-05-28 and `iot-data`; the AWS IoT Core developer guide for policies,
topics, and limits.

| endpoint | served |
|---|---|
| HTTPS, signed (SigV4 `iot`) | things, their types and groups, certificates with and without CA, CA certificates,
  custom authorizers, role aliases, policies with versions, attachments, TestAuthorization, tags, search,
  DescribeEndpoint |
| `POST /topics/{topic}` | publish, signed (`iotdata`, `iotdevicegateway`) or with a client certificate |
| MQTT 3.1.1 and 5 on 8883, or 443 with ALPN `x-amzn-mqtt-ca` | a registered, active certificate; its policies apply |
| MQTT with ALPN `mqtt`, WebSocket `/mqtt`, HTTPS | clients that a custom authorizer's function accepts |
| WebSocket `/mqtt`, presigned (`iotdevicegateway`) | MQTT 3.1.1 and 5; an access key's policy applies, if it has one |
| `GET /role-aliases/{alias}/credentials`, with a client certificate | temporary credentials |
| HTTPS, signed (`iotdata`) or with a client certificate | shadows, retained messages |
| `$aws/things/{thing}/shadow/…` | classic and named shadows |
| `$aws/things/{thing}/jobs/…`; HTTPS, signed (`iot-jobs-data`) or with a client certificate | jobs of a device |
| HTTPS, signed (`iot`) | jobs, their executions and templates |
| `$aws/events/presence/…`, `subscriptions/…` | lifecycle events: connect, disconnect, subscribe, unsubscribe |
| HTTPS, signed (`iot`) | fleet indexing: SearchIndex, statistics, dynamic thing groups |
| HTTPS, signed (`iotdata`) | GetConnection, DeleteConnection, ListSubscriptions |
| `$aws/events/thing/…` and others | registry events, as configured by UpdateEventConfigurations |

All other operations of the service model, and unsupported options of served operations, are answered 501
NotImplementedException. Not served yet, and rejected with their own codes: commands, rules.

Refused connections are closed without CONNACK, and a denied publish or subscribe ends the connection, as in AWS;
`birthmark why` has the reason. Differences from AWS: policies and certificate states take effect at the next packet
instead of within minutes. SNI_ONLY certificates do not require SNI. Certificates that this server signs do not outlive
its CA.
"""
