"""Output of commands: tables, JSON, errors with hints, and streams that follow."""
