"""X.509 values: certificates, requests, chains, issuance, CRLs, certs-only CMS, proof of possession.

Source: RFC 5280 (profile), RFC 2986 (requests), RFC 5652 (CMS), RFC 5958 (keys). All functions are pure: `now`, entropy
and private keys are arguments, and there is no I/O.

Not here: key storage (`keys`), authorization of issuance (`ca`), handshake results (`net`).
"""
