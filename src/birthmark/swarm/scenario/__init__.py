"""The scenario file: a table of all its keys (`settings`), the reader (`parse`), and what was left out (`resolve`)."""
