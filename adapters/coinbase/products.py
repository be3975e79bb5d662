"""How Coinbase names what it trades: `BTC-USD`, base and quote with a dash."""

from __future__ import annotations

import re

from daemon.core.errors import Code, NotFound

_PRODUCT = re.compile(r"[A-Z0-9]+(?:-[A-Z0-9]+)+", re.ASCII)
_SHOWN_CHARACTERS = 40


def product_id(symbol: str) -> str:
    """Turn `BTC-USD`, `BTC/USD` or `btc-usd` into Coinbase's own name, which is ours as well.

    Raises NotFound SYMBOL_UNKNOWN for what cannot be a product: it would end up in a path.
    """
    product = symbol.strip().upper().replace("/", "-")
    if not _PRODUCT.fullmatch(product):
        raise unknown(symbol)
    return product


def unknown(symbol: str) -> NotFound:
    """Word the error for a symbol that Coinbase does not have."""
    shown = "".join(character if character.isprintable() else "?" for character in symbol[:_SHOWN_CHARACTERS])
    message = f"Coinbase has no product {shown}; its products are named like BTC-USD"
    return NotFound(Code.SYMBOL_UNKNOWN, message, {"symbol": shown})
