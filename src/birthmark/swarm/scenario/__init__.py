"""The scenario file: a table of all keys (`setting_catalog`), the parser (`parser`), and the values (`model`)."""
