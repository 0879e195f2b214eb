"""AMQP 1.0 without IO, the server's end: values, performatives, frames, sessions, links and messages.

Bytes in, events out, bytes out (`engine.AmqpEngine`). Source: OASIS AMQP 1.0 (29 October 2012); section numbers in this
package are those of its parts: 1 types, 2 transport, 3 messaging, 5 security.

Other packages handle sockets and timers (net), tokens and authorization, and the addresses of a hub.
"""
