"""Several processes that serve as one: what each worker is told, the parent that keeps them, and its one front."""
