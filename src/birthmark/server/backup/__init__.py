"""Backup of a complete server to one encrypted file, and restore into an empty directory.

`archive` is the file format, `copying` the database of either engine, `making` and `restoring` the two operations.
`restoring` also handles what a restored server must not repeat: its state is older than the lost server's last output.
"""
