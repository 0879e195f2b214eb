"""Certificate authority: hierarchy, issuance, inventory, revocation.

A hierarchy is a root (20 years) and a CA below it for each purpose, the first made at first start and the others when
they are needed; keys are encrypted files of mode 0600, or in a PKCS#11 token, and the root's may be on another machine.
`service.CertificateAuthority` decides (`rules`), signs and records: inventory row, audit row and event are one commit,
and nothing leaves before it. The server has one in its data directory, an operator any number (`birthmark ca`).

`hierarchy` is what others see of it, `directory`, `kept` and `keyfile` its files, `offline` what travels to a root
elsewhere; `answers`, `lists` and `http` tell of revocation, `inventory` of what was issued.

Deliberately not here: how certificates travel (`est`, files), which chain is believed (`pki.path_validation`).
"""
