"""Backup of a complete server to one encrypted file, and restore into an empty directory.

`archive` is the file format, `database_copy` the database of either engine, `create` and `restore` the two operations.
`restore` also handles what a restored server must not repeat: its state is older than the lost server's last output.
"""
