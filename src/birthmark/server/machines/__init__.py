"""Several machines that serve as one: what each is called, and the files that all of them have."""
