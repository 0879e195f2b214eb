"""Network layer: TLS, protocol selection with limits, HTTP and WebSocket to ASGI, MQTT and AMQP drivers.

    tls             TLS context that requests any client certificate, and the handshake result (`TlsPeer`)
    accepted_connection  one accepted socket: handshake, first byte, then MQTT, AMQP or HTTP
    listener        ports, the services of each, connection limits, the deadline sweep
    bounded_http    uvicorn's protocol on our plaintext transport, with limits on headers, body and time
    mqtt_driver     runs a sans-IO MQTT engine and a service's session over any byte transport
    amqp_driver     the same for AMQP
    websocket_transport  MQTT and AMQP over WebSocket: the same drivers behind an ASGI route

Not here: authentication and authorization of requests (the services), MQTT packets (`mqtt`), AMQP frames (`amqp`).
"""
