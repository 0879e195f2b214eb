"""Sockets: one TLS server transport, one protocol mux with its limits, HTTP and WebSocket to ASGI, the MQTT pump.

tls        the TLS context that asks for any client certificate, and what a handshake proved (`TlsPeer`)
connection one accepted socket: handshake, first byte, then MQTT or HTTP
listener   ports, the services allowed on each, limits on connections, the deadline sweep
http       uvicorn's protocol behind our plaintext transport, with bounds on headers, body and time
mqtt_driver  drives a sans-IO MQTT engine and a room's session over any byte transport
mqtt_websocket  MQTT over WebSocket: the same pump behind an ASGI route

Not here: what a certificate or a request is worth (the rooms decide), MQTT packets (`mqtt`).
"""
