"""AMQP 1.0 without IO, both ends: values, performatives, frames, sessions, links and messages.

Bytes in, events out, bytes out: `engine.AmqpEngine` for a server, `client_engine.AmqpClientEngine` for a client.
Source: OASIS AMQP 1.0 (29 October 2012); section numbers in this package are those of its parts: 1 types, 2 transport,
3 messaging, 5 security.

Other packages handle sockets and timers (net), tokens and authorization, and the addresses of a hub.
"""
