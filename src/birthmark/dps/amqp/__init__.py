"""DPS over AMQP 1.0, on TCP and WebSocket (DPS device API 2019-03-31).

A device attaches a sending and a receiving link at `SCOPE/registrations/ID`. Its proof is the TLS certificate, a SAS
token in SASL PLAIN, or the SASL mechanism TPM. A response has the correlation ID of its request; a refusal is the
rejected outcome of the request.
"""

from birthmark.dps.amqp.connection import DpsAmqp

__all__ = ["DpsAmqp"]
