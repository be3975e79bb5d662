"""Pure computation over arrays: no I/O, no clock, no randomness but what is passed in.

`columns`, `expressions` and `program` need neither numba nor TA-Lib, so strategies are validated without them.
"""
