"""Enrollment over Secure Transport: how devices get and renew operational certificates (RFC 7030, RFC 8951).

| operation      | method | request            | success                                                       |
|----------------|--------|--------------------|---------------------------------------------------------------|
| cacerts        | GET    |                    | 200, certs-only: the issuing CA and the root; no proof needed |
| simpleenroll   | POST   | application/pkcs10 | 200, certs-only: the issued certificate alone                 |
| simplereenroll | POST   | application/pkcs10 | 200, likewise; needs the certificate that is being renewed    |
| csrattrs       | GET    |                    | 200 application/csrattrs, or 204 when there is nothing to say |

All under `/.well-known/est/`, optionally with one label before the operation. Proofs: HTTP Basic, a certificate issued
here, or a certificate of a CA that may introduce devices (bootstrap). Azure's agent never calls simplereenroll: it
renews by simpleenroll over TLS with the certificate in use, so that is treated as a renewal of the same name.

Deliberately not here: fullcmc, serverkeygen (a key that travels contradicts keys that live in chips), Digest
authentication, manual approval (202). This module imports no server framework; `http` does.
"""
