"""Manifests of shipped chips: stream, verify each entry, write.

Specification: Microchip Trust&GO manifest, a JSON array of flattened JWS objects (RFC 7515 section 7.2.2), ES256. Files
can be gigabytes, so only one entry is held in memory.

| module | |
|---|---|
| microchip | verified entries of a file |
| trust_anchors | Microchip's signers of manifests and device certificates |
| writer | manifests in the same format, signed with your own key |
"""
