"""MQTT 3.1.1 and 5 without IO: packets, framing, connections of both roles, topics.

Bytes in, packets through, bytes out (`engine.Engine`). Source: OASIS MQTT 3.1.1 (29 October 2014) and MQTT 5.0 (7 March
2019); section numbers in this package are those of 3.1.1 unless 5 is named.

Other packages handle sockets and timers (net), authorization (dps, iothub, awsiot), and stored sessions.
"""
