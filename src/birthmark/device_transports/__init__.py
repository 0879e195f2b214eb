"""Transports of a device: HTTPS requests and MQTT connections with the device's own key, in a file or a token.

Two ports at the level of messages, not bytes (`HttpsClient`, `MqttClient`), have two adapters:

| adapter | keys | by |
|---|---|---|
| `openssl` | in a file, or none | the standard library's TLS and the `birthmark` MQTT engine |
| `crt` | in a PKCS#11 token | awscrt, which requests each signature from the token |

`open_links` chooses the adapter. The server's certificate is always verified against the given trust and the host name.

Not here: protocols over a connection (est, dps, iothub), sources of keys (keys, secure_elements), retry policy (agent).
"""
