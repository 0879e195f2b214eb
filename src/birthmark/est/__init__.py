"""Enrollment over Secure Transport: issue and renew operational certificates (RFC 7030, RFC 8951, RFC 9908).

| operation      | method | request            | success                                                       |
|----------------|--------|--------------------|---------------------------------------------------------------|
| cacerts        | GET    |                    | 200, certs-only: the CAs above a certificate; no proof needed |
| simpleenroll   | POST   | application/pkcs10 | 200, certs-only: only the issued certificate                  |
| simplereenroll | POST   | application/pkcs10 | 200, likewise; needs the certificate that is being renewed    |
| csrattrs       | GET    |                    | 200 application/csrattrs, or 204 without requirements         |
| serverkeygen   | POST   | application/pkcs10 | 200 multipart/mixed: PKCS#8 and certificate; off by default   |
| fullcmc        | POST   |                    | 501                                                           |

All paths are below `/.well-known/est/`, optionally with one EST label before the operation, which selects a profile and
rules. Proofs are HTTP Basic (a user, or a token for one device and key) or a certificate. The certificate is issued
here, by a bootstrap CA, or belongs to a listed registration authority. Azure's agent never calls simplereenroll: it
renews by simpleenroll with the certificate in use, so that counts as a renewal of the same name.

If an operator decides, the response is 202 with Retry-After until then. An expired certificate is accepted if the rule
of its profile allows a late renewal (`rules.late_renewal`).

Not implemented: full CMC, Digest authentication, and key encryption beyond TLS. This module imports no server
framework; `http` does.
"""
