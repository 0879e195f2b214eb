"""Certificate authority: hierarchy, issuance, inventory, revocation.

A hierarchy is a root (20 years) and an issuing CA below it, made at first start; keys are encrypted files of mode 0600.
`service.CertificateAuthority` decides (`rules`), signs and records: inventory row, audit row and event are one commit,
and nothing leaves before it. The server has one in its data directory, an operator any number (`birthmark ca`).

Deliberately not here: how certificates travel (`est`, files), which chain is believed (`pki.chains`).
"""
