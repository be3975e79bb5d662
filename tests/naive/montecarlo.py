"""Paths of a Monte Carlo simulation, slowly and obviously: Python's whole numbers, one trade at a time, lists.

A literal reading of the docstrings of `daemon.engine.resampling` and `daemon.engine.montecarlo`; nothing is shared.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Floats: TypeAlias = "Sequence[float]"
WORDS = 2**64


def splitmix64(seed: int) -> Iterator[int]:
    """Yield the sequence that starts at a seed."""
    while True:
        seed = (seed + 0x9E3779B97F4A7C15) % WORDS
        mixed = (seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9 % WORDS
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % WORDS
        yield mixed ^ (mixed >> 31)


def rotated(word: int, places: int) -> int:
    """Shift to the left, what falls out comes in on the right."""
    return ((word << places) | (word >> (64 - places))) % WORDS


class Generator:
    """xoshiro256++, and what is made of its words."""

    def __init__(self, seed: int, path: int) -> None:
        sequence = splitmix64(seed)
        self.state = [next(sequence) for _ in range(4 * path + 4)][-4:]

    def word(self) -> int:
        """64 bits."""
        s = self.state
        word = (rotated((s[0] + s[3]) % WORDS, 23) + s[0]) % WORDS
        shifted = (s[1] << 17) % WORDS
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= shifted
        s[3] = rotated(s[3], 45)
        return word

    def uniform(self) -> float:
        """The upper 53 bits, in [0, 1)."""
        return (self.word() >> 11) / 2**53

    def below(self, count: int) -> int:
        """The upper 32 bits, scaled; those that would favour a number are drawn again."""
        while True:
            product = (self.word() >> 32) * count
            if product % 2**32 >= 2**32 % count:
                return product // 2**32

    def bell(self) -> float:
        """The sum of the four quarters of a word, to [-1, 1]."""
        word = self.word()
        total = sum((word >> shift) % 2**16 for shift in (0, 16, 32, 48))
        return (total - 2 * 65_535) / (2 * 65_535)


def blocks(values: Floats, restart_chance: float, generator: Generator, size: int) -> list[float]:
    """Blocks of the values, laid around a circle."""
    places: list[int] = []
    while len(places) < size:
        goes_on = bool(places) and generator.uniform() >= restart_chance
        places.append((places[-1] + 1) % len(values) if goes_on else generator.below(len(values)))
    return [values[place] for place in places]


def shuffled(values: Floats, generator: Generator) -> list[float]:
    """From the last place down: swap with any of those up to it."""
    order = list(values)
    for i in reversed(range(1, len(order))):
        other = generator.below(i + 1)
        order[i], order[other] = order[other], order[i]
    return order


def path(method: str, returns: Floats, costs: Floats, generator: Generator, chosen: dict[str, float]) -> list[float]:
    """Return the trades of one path. chosen: restart_chance, miss_chance, cost_noise, fill_noise."""
    if method == "bootstrap":
        return blocks(returns, chosen["restart_chance"], generator, len(returns))
    if method == "shuffle":
        return shuffled(returns, generator)
    if method == "missed":
        return [0.0 if generator.uniform() < chosen["miss_chance"] else one for one in returns]
    disturbed = []
    for one, cost in zip(returns, costs, strict=True):
        dearer = one - cost * chosen["cost_noise"] * generator.bell()
        disturbed.append(dearer + cost * chosen["fill_noise"] * generator.bell())
    return disturbed


def equity(trades: Floats) -> list[float]:
    """Equity before the first trade and after each."""
    curve = [1.0]
    for one in trades:
        curve.append(min(max(curve[-1] * (1.0 + one), 0.0), 1e150))
    return curve


def ends(trades: Floats) -> tuple[float, float, float]:
    """Return final equity, largest drawdown, lowest equity."""
    curve = equity(trades)
    falls = [1.0 - curve[i] / max(curve[: i + 1]) for i in range(len(curve))]
    return curve[-1], max(falls), min(curve)


def block_length(returns: Floats) -> float:
    """Return the length that Politis and White's rule finds, from whole lists of autocovariances."""
    known = [one for one in returns if not math.isnan(one)]
    size = len(known)
    if size < 10 or len(set(known)) == 1:
        return 1.0
    mean = sum(known) / size
    most = min(math.ceil(math.sqrt(size)) + 5, size - 1)

    def covariance(lag: int) -> float:
        return sum((known[i] - mean) * (known[i + lag] - mean) for i in range(size - lag)) / size

    bound = 2 * math.sqrt(math.log10(size) / size)
    is_calm = [abs(covariance(lag)) / covariance(0) < bound for lag in range(most + 1)]
    firsts = [lag for lag in range(1, most - 3) if all(is_calm[lag : lag + 5])]
    window = min(2 * firsts[0], most) if firsts else most
    weights = {lag: 1 if lag / window <= 0.5 else 2 * (1 - lag / window) for lag in range(1, window + 1)}
    spread = 2 * sum(weight * lag * covariance(lag) for lag, weight in weights.items())
    density = covariance(0) + 2 * sum(weight * covariance(lag) for lag, weight in weights.items())
    longest = math.ceil(min(3 * math.sqrt(size), size / 3))
    return min(max(((spread / density) ** 2 * size) ** (1 / 3), 1.0), longest)
