"""`birthmark doctor`: diagnosis of a device, a secure element or a server, with evidence and commands.

Checks are offline first: results from this machine precede network checks, and a finding suppresses its consequences.
Checks change nothing. For a token, at most one login is tried, and none if it might be the last attempt.

`setting_sources` has values with their sources, and `facts` has observations as values. `rules` evaluates them.
`file_inspection`, `chip`, `middleware_config`, `identity`, `agent_inspection`, `local_server_checks` and
`network` collect them. A vendor's library runs in a separate process (`pkcs11_probe`), because some crash and some
hang.
"""
