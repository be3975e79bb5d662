"""A trader's own strategies: the folder they lie in, what their files declare, loading them in a worker."""
