"""Lists of shipped chips: read as a stream, verify each entry, write.

Specification: Microchip Trust&GO manifest, a JSON array of flattened JWS objects (RFC 7515 section 7.2.2), ES256.
Whole files are gigabytes, so nothing here holds more than one entry.

| module | |
|---|---|
| microchip | entries of a file, checked one by one |
| anchors | who signs manifests and device certificates at Microchip, as facts |
| writer | manifests in the same format, signed by a key of one's own |
"""
