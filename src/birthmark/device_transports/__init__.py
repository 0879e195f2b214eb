"""A device's way out: HTTPS requests and MQTT connections with the device's own key, wherever that key lives.

Two ports, messages and not bytes (`HttpsClient`, `MqttClient`), and two adapters behind them:

| adapter | keys | by |
|---|---|---|
| `openssl` | in a file, or none | the standard library's TLS and our own MQTT engine |
| `crt` | in a PKCS#11 token | awscrt, which asks the token for each signature |

`open_links` chooses. The server's certificate is always checked against the trust given and the name connected to.

Not here: what is said over a link (est, dps, iothub), where keys come from (keys, elements), when to try again (agent).
"""
