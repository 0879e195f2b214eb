"""Operator's fleet tools: enroll devices at Azure, AWS or a Birthmark server, individually or by shipment.

The code does not distinguish these targets: a profile has endpoint, credentials and trust, and the vendors' own service
SDKs send the requests.
"""
