"""Everything of a server in one encrypted file, and back into an empty directory.

`archive` is the file, `copying` the database of either engine, `making` and `restoring` the two directions. What a
restored server must not do again is in `restoring`: the state it begins with is older than what the lost one said last.
"""
