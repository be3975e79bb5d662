"""Our names of Binance's instruments, and its own.

Spot and USD-margined perpetuals share their names at the venue (both are BTCUSDT), so ours say which: BTCUSDT is spot,
BTCUSDT-PERP the perpetual. Delivery contracts keep the venue's name, BTCUSDT_240628.
"""

from __future__ import annotations

import re
from typing import Final

from adapters.binance.config import Market

_PERPETUAL: Final = "-PERP"
_VENUE_PERPETUAL: Final = "_PERP"
_DELIVERY: Final = re.compile(r"(?P<pair>[A-Z0-9]+)_[0-9]{6}")
# Three letters before BUSD are a coin quoted in the dollar token BUSD (BTC-BUSD), fewer are part of a coin's own name
# (BNB-USD). Futures in BUSD ended in 2023, but their archives stay.
_DOLLAR_TOKEN: Final = re.compile(r"[A-Z0-9]{3,}BUSD")


def venue_symbol(symbol: str) -> tuple[Market, str]:
    """Return the market of one of our symbols, and its name there; BTC/USDT and BTC-USDT are spot as well.

    The venue's own spelling of a perpetual (BTCUSD_PERP) is taken as it is. Whether the venue has it, it alone knows.
    """
    if symbol.endswith(_VENUE_PERPETUAL):
        return Market.CM, symbol
    if symbol.endswith(_PERPETUAL):
        pair = symbol.removesuffix(_PERPETUAL).replace("/", "").replace("-", "")
        return (Market.CM, pair + _VENUE_PERPETUAL) if _coin_margined(pair) else (Market.UM, pair)
    if delivery := _DELIVERY.fullmatch(symbol):
        return (Market.CM if _coin_margined(delivery["pair"]) else Market.UM), symbol
    return Market.SPOT, symbol.replace("/", "").replace("-", "")


def our_symbol(market: Market, name: str) -> str:
    """Return our symbol for a venue's name: the way back of `venue_symbol`."""
    if market is Market.SPOT or _DELIVERY.fullmatch(name):
        return name
    return name.removesuffix(_VENUE_PERPETUAL) + _PERPETUAL


def _coin_margined(pair: str) -> bool:
    """Tell contracts on the dollar itself, settled in the coin, from those on a dollar token."""
    return pair.endswith("USD") and not _DOLLAR_TOKEN.fullmatch(pair)
