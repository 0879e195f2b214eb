"""Several processes that serve as one: the workers, their parent process, and its shared front end."""
