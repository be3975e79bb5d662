"""A trader's own strategies, code that nobody has checked: their folder, what files declare, loading, failing."""
