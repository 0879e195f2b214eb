"""Pure rules: from observations to findings and commands."""
