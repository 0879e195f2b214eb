"""Backup of a complete server to one encrypted file, and restore into an empty directory.

`archive` is the file format, and `database_copy_and_import` the database of either engine. `backup_creation` and
`restore` are the two operations.
`restore` also handles what a restored server must not repeat: its state is older than the lost server's last output.
"""
