"""Production line manifests (bundles): chips recorded by stations, signed line by line.

A bundle is a file of JSON lines (`line_format`): an opening with the station's certificate, one line per chip, and a
seal. Each line contains the SHA-256 of the previous one and is signed by the station, so no line can be changed,
moved, added or removed undetected. A chip's line holds its certificates, the board's serial number and the operator.
It also holds the chip's own signature over a nonce of all of these, which is valid for this chip and line only. A file
may hold several sealed bundles, one after another.

| module | |
|---|---|
| intake_records, accepted_stations_and_roots | values: intake, trust |
| line_format | lines <-> values, for writers and readers |
| chip_proof_rules | chip nonce; intake checks; line verification |
| single_line_checks | context-free line checks: the expensive part |
| verifier | a file, line by line |
| parallel_verifier | a long file, on all cores |
| station | the writer: open bundle, recorded chips, recovery after a power loss |
| station_identity | a station's key and certificate |
"""
