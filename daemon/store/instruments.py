"""The instruments that the store knows, their numbers in its keys, and how users name them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from daemon.core.errors import Code, InvalidRequest, NotFound
from daemon.core.market import SYMBOL_PATTERN, VENUE_PATTERN, Instrument
from daemon.core.ports import InstrumentFacts
from daemon.store import documents

if TYPE_CHECKING:
    from daemon.store.env import Environment, Transaction

_COUNT: Final = b"instruments"
_FACTS: Final = "instrument"
_SEPARATORS: Final = str.maketrans("", "", "/-_.")


def parse_instrument(text: str, default_venue: str | None = None) -> Instrument:
    """Parse `SYMBOL` or `venue:SYMBOL`, in any case; a bare symbol needs a default venue.

    InvalidRequest INVALID_SYMBOL where either part has other characters than it may.
    """
    venue, colon, symbol = text.strip().rpartition(":")
    instrument = Instrument((venue if colon else default_venue or "").lower(), symbol.upper())
    venue_needed = bool(colon) or default_venue is not None
    # `upper` would make letters of the patterns of others: an SS of a sharp s.
    if (
        not text.isascii()
        or not SYMBOL_PATTERN.fullmatch(instrument.symbol)
        or (venue_needed and not VENUE_PATTERN.fullmatch(instrument.venue))
    ):
        raise InvalidRequest(
            Code.INVALID_SYMBOL,
            f"`{text}` is no symbol: letters, digits and ._/- (32 at most), optionally after a venue and a colon",
            {"symbol": text},
        )
    return instrument


def resolve(env: Environment, text: str) -> Instrument:
    """Find the stored instrument that a user names as `venue:SYMBOL` or, where it is unique, `SYMBOL`.

    A symbol that is not stored as it is written is found without its separators: `SOL/USDT`, `SOL-USDT` and `SOLUSDT`
    are one. NotFound INVALID_SYMBOL where nothing is stored under it, InvalidRequest AMBIGUOUS_SYMBOL for several.
    """
    wanted = parse_instrument(text)
    with env.read() as transaction:
        stored = [instrument for instrument in numbered(transaction).values() if wanted.venue in ("", instrument.venue)]
    matches = [instrument for instrument in stored if instrument.symbol == wanted.symbol]
    if not matches:
        plain = wanted.symbol.translate(_SEPARATORS)
        matches = [instrument for instrument in stored if instrument.symbol.translate(_SEPARATORS) == plain]
    if not matches:
        raise NotFound(
            Code.INVALID_SYMBOL,
            f"Symbol {text} not found: nothing is stored under it. `atlasd data symbols` lists what is",
            {"symbol": text},
        )
    if len(matches) > 1:
        choices = ", ".join(sorted(instrument.key for instrument in matches))
        raise InvalidRequest(
            Code.AMBIGUOUS_SYMBOL,
            f"Symbol {text} is stored for several venues: write one of {choices}",
            {"symbol": text, "choices": choices.split(", ")},
        )
    return matches[0]


def numbered(transaction: Transaction) -> dict[int, Instrument]:
    """Return every instrument by its number."""
    return {
        int.from_bytes(value, "big"): parse_instrument(key.decode())
        for key, value in transaction.scan("instruments", b"")
    }


def number(transaction: Transaction, instrument: Instrument) -> int | None:
    """Return an instrument's number, None where it has none yet."""
    value = transaction.get("instruments", instrument.key.encode())
    return None if value is None else int.from_bytes(value, "big")


def register(transaction: Transaction, instrument: Instrument) -> int:
    """Return an instrument's number, a new one where it has none."""
    known = number(transaction, instrument)
    if known is not None:
        return known
    value = transaction.get("meta", _COUNT)
    new = int.from_bytes(value, "big") + 1 if value is not None else 1
    transaction.put("meta", _COUNT, new.to_bytes(4, "big"))
    transaction.put("instruments", instrument.key.encode(), new.to_bytes(4, "big"))
    return new


def put_facts(transaction: Transaction, instrument: Instrument, facts: InstrumentFacts) -> None:
    """Keep what a venue says of an instrument: its steps of price and size, its least size and notional."""
    documents.put(transaction, _FACTS, instrument.key, facts)


def facts(env: Environment, instrument: Instrument) -> InstrumentFacts | None:
    """Return what a venue said last of an instrument, None where it was not asked."""
    with env.read() as transaction:
        return documents.get(transaction, _FACTS, instrument.key, InstrumentFacts)
