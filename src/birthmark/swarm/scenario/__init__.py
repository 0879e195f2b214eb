"""The scenario file: a table of all keys (`settings`), the parser (`parse`), and defaults (`resolve`)."""
