"""`birthmark doctor`: why a device, a chip or a server does not work, told with what was seen and what to type.

Offline first: what can be told from this machine alone is told before anybody is asked, and a finding that explains
another keeps it back. Looking changes nothing. Of a token one login is tried, and none where it might be the last one.

`settings` is a value and where it was said, `facts` what was seen, as values; `rules` says what is wrong with it;
`looking`, `chip`, `wiring`, `identity`, `agent`, `servers` and `network` look. A vendor's library runs in a process of
its own (`probe`), as some crash and some hang.
"""
