"""Network layer: TLS, protocol multiplexer with limits, HTTP and WebSocket to ASGI, MQTT driver.

    tls             TLS context that requests any client certificate, and the handshake result (`TlsPeer`)
    connection      one accepted socket: handshake, first byte, then MQTT or HTTP
    listener        ports, the services of each, connection limits, the deadline sweep
    http            uvicorn's protocol on our plaintext transport, with limits on headers, body and time
    mqtt_driver     runs a sans-IO MQTT engine and a service's session over any byte transport
    websocket_transport  MQTT and AMQP over WebSocket: the same drivers behind an ASGI route

Not here: authentication and authorization of requests (the services), MQTT packets (`mqtt`).
"""
