"""The outside world: files, venues, indexers, chains.

Each adapter imports `daemon.core` only, and none knows another: a source can be added, changed or dropped
without a look at its neighbours. What an adapter hands over is arrays and errors of ours, never a foreign
library's types.
"""
