"""Enrollment over Secure Transport: how devices get and renew operational certificates (RFC 7030, RFC 8951, RFC 9908).

| operation      | method | request            | success                                                       |
|----------------|--------|--------------------|---------------------------------------------------------------|
| cacerts        | GET    |                    | 200, certs-only: the CAs above a certificate; no proof needed |
| simpleenroll   | POST   | application/pkcs10 | 200, certs-only: the issued certificate alone                 |
| simplereenroll | POST   | application/pkcs10 | 200, likewise; needs the certificate that is being renewed    |
| csrattrs       | GET    |                    | 200 application/csrattrs, or 204 when there is nothing to say |
| serverkeygen   | POST   | application/pkcs10 | 200 multipart/mixed: PKCS#8 and certificate; off by default   |
| fullcmc        | POST   |                    | 501                                                           |

All under `/.well-known/est/`, optionally with one label before the operation, which chooses a profile and rules.
Proofs: HTTP Basic (a user, or a token for one device and key), a certificate issued here, one of a CA that may
introduce devices (bootstrap), or one of a registration authority on the list. Azure's agent never calls simplereenroll:
it renews by simpleenroll with the certificate in use, so that is treated as a renewal of the same name.

Where an operator decides, the answer is 202 with Retry-After until then; an expired certificate counts where the rule
of its profile says so (`rules.comeback`).

Deliberately not here: full CMC, Digest authentication, keys encrypted beyond TLS. This module imports no server
framework; `http` does.
"""
