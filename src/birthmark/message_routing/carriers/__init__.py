"""Ways out: each takes letters of one kind to where their address says."""
