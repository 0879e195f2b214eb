"""MQTT 3.1.1 and 5 without IO: packets, framing, connections of both roles, topics.

Bytes in, packets through, bytes out (`engine.Engine`). Source: OASIS MQTT 3.1.1 (29 October 2014) and MQTT 5.0
(7 March 2019); section numbers in this room are those of 3.1.1 unless 5 is named.

Not here: sockets and timers (net), who may connect or publish (dps, iothub, awsiot), storage of sessions.
"""
