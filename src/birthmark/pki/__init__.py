"""X.509 as values: certificates, requests, chains, issuing, revocation lists, certs-only CMS, possession proofs.

Source: RFC 5280 (profile), RFC 2986 (requests), RFC 5652 (CMS), RFC 5958 (keys). Everything here is pure: `now`,
entropy and private keys are arguments, nothing is read or written.

Not here: where keys live (`keys`), who may get a certificate (`ca`), what a handshake showed (`net`).
"""
