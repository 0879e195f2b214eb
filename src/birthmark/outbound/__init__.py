"""Whatever calls out: to which addresses, how it is signed, how long it may take and how much it may answer.

Where a name leads is looked at when a connection is made, and the address that was looked at is the one that is
connected to: a name that leads elsewhere later helps nobody. Redirects are not followed, proxies are not asked.
"""
