"""Who is asking: principals and the proofs that make one."""
