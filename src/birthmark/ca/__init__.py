"""Certificate authority: hierarchy, issuance, inventory, revocation.

A hierarchy is a root CA (20 years) and a subordinate CA per purpose; the first is created at first start, the others on
demand. Keys are encrypted files of mode 0600 or in a PKCS#11 token; the root key may be on another machine.
`service.CertificateAuthority` decides (`rules`), signs and records. The inventory row, audit row and event are one
commit, and no certificate is returned before it. A server has one CA in its data directory; an operator can have any
number (`birthmark ca`).

`hierarchy` is the interface for other packages; `ca_directory`, `hierarchy_files` and `key_files` are its files.
`offline_root` has the exchange with a root on another machine. `ocsp_responder`, `crls` and `http` publish revocation
status; `certificate_inventory_queries` lists issued certificates.

Transport of certificates (`est`, files) and path validation (`pki.path_validation`) are elsewhere.
"""
