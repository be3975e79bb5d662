"""Words that every room shares: standard library, NumPy and msgspec only."""
