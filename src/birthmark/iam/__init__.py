"""People: who operates this server, what each may do and where, and the tokens by which their commands ask.

A person is invited and gets a token for what redeems the invitation. What people may do is kept in memory, and read
again after each change by any worker, so that a right that is taken away counts at once. Not here: sessions of
browsers and sign-in at others (OIDC).
"""
