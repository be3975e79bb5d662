"""Random numbers that are the same on any machine, and series drawn from a series with its dependence kept.

Returns that follow each other are seldom independent: losses cluster. A bootstrap that draws single values loses that
and promises too narrow a range; one that draws blocks keeps it. How long the blocks must be, the series itself says.

Every path has its own generator, made of the seed and the path's number alone: which thread walks it, in which chunk
and after which other path, is of no matter. A generator is xoshiro256++, its four words taken from the splitmix64
sequence that starts at the seed: words 4p to 4p + 3 for path p, so no two paths of a seed share a word. Only integer
arithmetic and IEEE operations that round alike everywhere decide a result, never a logarithm or a cosine of the
platform's: noise is a sum of uniforms.
Sources: Blackman and Vigna, Scrambled Linear Pseudorandom Number Generators (2021); Steele, Lea and Flood (2014);
Lemire, Fast Random Integer Generation in an Interval (2019).
"""

from __future__ import annotations

import math
from decimal import Context, Decimal
from itertools import chain
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from daemon.engine.jit import kernel

if TYPE_CHECKING:
    from daemon.core.market import Float64s

UInt64s: TypeAlias = NDArray[np.uint64]
Words: TypeAlias = tuple[np.uint64, np.uint64, np.uint64, np.uint64]
"""A generator's state as loops hold it: in registers, where an array would be stored and loaded at every number."""

LEAST_VALUES: Final = 10
"""Values below which nothing is said about their dependence."""

# Of numba's uint64 and a plain int comes a float64: every constant beside a word is a word itself.
_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_FIRST_MIX: Final = np.uint64(0xBF58476D1CE4E5B9)
_SECOND_MIX: Final = np.uint64(0x94D049BB133111EB)
_LOW_16: Final = np.uint64(0xFFFF)
_LOW_32: Final = np.uint64(0xFFFFFFFF)
_WORDS: Final = np.uint64(4)
_BELL_CENTRE: Final = 131_070  # 2 x 65,535: the mean of four uniforms of 16 bits
_PER_UNIT: Final = 2.0**-53
_AT_ONCE: Final = 1 << 16  # values that become objects, four times their size, at a time
_RUN: Final = 5  # autocorrelations in a row that must be insignificant: K_N of Politis and White
_EXACT: Final = Context(prec=40)


def seed_word(seed: int) -> np.uint64:
    """Return a seed as kernels take it; ValueError where it is none. seed: 0 to 2^64 - 1."""
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"seed is {seed}: 0 to 2^64 - 1")
    return np.uint64(seed)


# The generator. A kernel that takes `state`, (4,) uint64 of `stream`, moves it on; one that takes `words` returns what
# follows them.


@kernel
def stream(seed: np.uint64, path: int) -> UInt64s:
    """Return a path's generator, (4,) uint64. seed: any uint64. path: >= 0."""
    state = np.empty(4, np.uint64)
    word = seed + np.uint64(path) * _WORDS * _GOLDEN
    for i in range(4):
        word += _GOLDEN
        mixed = (word ^ (word >> np.uint64(30))) * _FIRST_MIX
        mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND_MIX
        state[i] = mixed ^ (mixed >> np.uint64(31))
    return state


@kernel
def following(words: Words) -> tuple[np.uint64, Words]:
    """Return 64 random bits, and the state after them."""
    first, second, third, fourth = words
    total = first + fourth
    word = ((total << np.uint64(23)) | (total >> np.uint64(41))) + first
    shifted = second << np.uint64(17)
    third ^= first
    fourth ^= second
    second ^= third
    first ^= fourth
    third ^= shifted
    fourth = (fourth << np.uint64(45)) | (fourth >> np.uint64(19))
    return word, (first, second, third, fourth)


@kernel
def next_word(state: UInt64s) -> np.uint64:
    """Return 64 random bits."""
    word, (state[0], state[1], state[2], state[3]) = following((state[0], state[1], state[2], state[3]))
    return word


@kernel
def share_of(word: np.uint64) -> float:
    """Return a multiple of 2^-53 in [0, 1), each as likely where each word is."""
    return np.int64(word >> np.uint64(11)) * _PER_UNIT


@kernel
def uniform(state: UInt64s) -> float:
    """Return a multiple of 2^-53 in [0, 1), each as likely."""
    return share_of(next_word(state))


@kernel
def following_below(words: Words, count: int) -> tuple[int, Words]:
    """Return an integer in [0, count), each exactly as likely, and the state after it. count: 1 to 2^32 - 1.

    Source: Lemire (2019).
    """
    bound = np.uint64(count)
    while True:
        word, words = following(words)
        product = (word >> np.uint64(32)) * bound
        low = product & _LOW_32
        # The remainder is below the bound: most draws are spared the division.
        if low >= bound or low >= (_LOW_32 - bound + np.uint64(1)) % bound:
            return np.int64(product >> np.uint64(32)), words  # type: ignore[return-value]


@kernel
def below(state: UInt64s, count: int) -> int:
    """Return an integer in [0, count), as `following_below`."""
    number, (state[0], state[1], state[2], state[3]) = following_below((state[0], state[1], state[2], state[3]), count)
    return number


@kernel
def bell_of(word: np.uint64) -> float:
    """Turn a random word into a number in [-1, 1] from a symmetric bell: mean 0, deviation 1 / sqrt(12) = 0.2887.

    The sum of four uniforms of 16 bits, out of one word, moved and scaled. Its kurtosis is 2.7; a normal's is 3, but it
    has no bound and needs a logarithm. Source: Irwin (1927), Hall (1927).
    """
    total = (word & _LOW_16) + ((word >> np.uint64(16)) & _LOW_16)
    total += ((word >> np.uint64(32)) & _LOW_16) + (word >> np.uint64(48))
    return (np.int64(total) - _BELL_CENTRE) / _BELL_CENTRE


# The stationary bootstrap.


@kernel
def draw_blocks(values: Float64s, restart_chance: float, state: UInt64s, out: Float64s) -> None:
    """Fill `out` with blocks of `values` of random place and geometric length; the end is followed by the beginning.

    values: (n,) float64, n >= 1. restart_chance: 1 / mean length of a block, in (0, 1]; 1 draws single values.
    out: (m,) float64, written. Its first k numbers do not depend on m. Source: Politis and Romano (1994).
    """
    words = state[0], state[1], state[2], state[3]
    place = 0
    for i in range(out.size):
        restarts = i == 0
        if not restarts:
            word, words = following(words)
            restarts = share_of(word) < restart_chance
        if restarts:
            place, words = following_below(words, values.size)
        else:
            place += 1
            if place == values.size:
                place = 0
        out[i] = values[place]
    state[0], state[1], state[2], state[3] = words


@kernel
def means_of_draws(values: Float64s, restart_chance: float, seed: np.uint64, out: Float64s) -> None:
    """Write the mean of one series as long as `values` for each path to `out`, (m,) float64; as of `draw_blocks`."""
    drawn = np.empty_like(values)
    for path in range(out.size):
        draw_blocks(values, restart_chance, stream(seed, path), drawn)
        total = 0.0
        for i in range(drawn.size):
            total += drawn[i]
        out[path] = total / drawn.size


def bootstrap_means(returns: Float64s, count: int, block: float, seed: int) -> Float64s:
    """Means of `count` series that the stationary bootstrap draws: how far the mean of `returns` could be off.

    returns: (n,) float64, finite, n >= 1. block: mean length of a block, >= 1. seed: 0 to 2^64 - 1. ValueError
    otherwise. Returns (count,) float64. An interval of their percentiles is a little too narrow where dependence is
    strong: of nominal 90 % some 85 % hold the mean of an AR(1) of 0.5 with 500 values, 65 % with blocks of one value.
    """
    if not returns.size or not np.isfinite(returns).all():
        raise ValueError("returns must be one finite number or more")
    if not 1 <= block < math.inf:
        raise ValueError(f"block is {block}: a block has a length of at least 1")
    means = np.empty(count)
    # A copy of ours: an array that is not ours to write to would be another signature of the kernel.
    means_of_draws(np.array(returns, dtype=np.float64), 1.0 / block, seed_word(seed), means)
    return means


# How long a block is.


@kernel
def autocovariance(centred: Float64s, lag: int) -> float:
    """Sum of products `lag` values apart over n, from left to right. centred: (n,) float64 of mean 0. lag: < n."""
    total = 0.0
    for i in range(centred.size - lag):
        total += centred[i] * centred[i + lag]
    return total / centred.size


def block_length(returns: Float64s) -> float:
    """Mean length of blocks with which the stationary bootstrap errs least about the variance of the mean.

    returns: (n,) float64; NaN are left out, ValueError for infinity. At least 1, at most ceil(min(3 sqrt(n), n / 3)).
    1, no blocks at all, below LEAST_VALUES values and where they are all equal: neither shows any dependence.
    With R the autocovariances, w the flat-top window and M twice the lag from which five autocorrelations in a row
    are below 2 sqrt(log10(n) / n), that lag included, as Patton's own program has it: b = (G^2 n / g^2)^(1/3),
    G = sum w(k/M) |k| R(k), g = sum w(k/M) R(k).
    Source: Politis and White (2004), corrected by Patton, Politis and White (2009).
    """
    known = np.array(returns[~np.isnan(returns)], dtype=np.float64)
    if np.isinf(known).any():
        raise ValueError("returns hold infinity: they must be finite, or NaN where there is none")
    if known.size < LEAST_VALUES or (known == known[0]).all():
        return 1.0
    centred = _centred(known)
    covariances = _covariances(centred)
    cutoff = len(covariances) - 1
    spread, density = 0.0, covariances[0]
    for lag, covariance in enumerate(covariances[1:], 1):
        weight = min(1.0, 2 * (1 - lag / cutoff))
        spread += 2 * weight * lag * covariance
        density += 2 * weight * covariance
    longest = math.ceil(min(3 * math.sqrt(known.size), known.size / 3))
    if density == 0:
        return float(longest) if spread else 1.0
    ratio = spread / density
    # Decimal's power, because libm's has another last digit on another machine.
    best = float(_EXACT.power(Decimal(ratio * ratio * known.size), _EXACT.divide(1, 3)))
    return min(max(best, 1.0), float(longest))


def _centred(known: Float64s) -> Float64s:
    """Return values less their mean, over the largest of them: no square overflows, and the length has no unit."""
    scaled = known / np.abs(known).max()
    parts = (scaled[at : at + _AT_ONCE].tolist() for at in range(0, scaled.size, _AT_ONCE))
    centred = scaled - math.fsum(chain.from_iterable(parts)) / scaled.size
    return np.asarray(centred / np.abs(centred).max())


def _covariances(centred: Float64s) -> list[float]:
    """Return autocovariances up to the lag M, where the window ends."""
    size = centred.size
    longest = min(math.isqrt(size - 1) + 1 + _RUN, size - 1)
    bound = 2 * math.sqrt(float(_EXACT.log10(size)) / size)
    covariances = [autocovariance(centred, 0)]
    calm = 0
    for lag in range(1, longest + 1):
        covariances.append(autocovariance(centred, lag))
        calm = calm + 1 if abs(covariances[lag]) < bound * covariances[0] else 0
        if calm == _RUN:
            longest = min(2 * (lag - _RUN + 1), longest)
            break
    covariances.extend(autocovariance(centred, lag) for lag in range(len(covariances), longest + 1))
    return covariances[: longest + 1]
