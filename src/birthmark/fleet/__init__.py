"""The operator's side: put devices on record at Azure, AWS or a Birthmark server, one or a shipment.

Nothing here knows which of them answers: a profile is endpoint, credentials and trust, and the vendors' own service
SDKs do the talking.
"""
