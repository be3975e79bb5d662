"""Which columns an archive file has, and of which market it is.

Spot files have no header; futures files have one only since 2022. Without one, the count of columns tells spot from
futures, and the symbol tells COIN-M (BTCUSD_PERP) from USD-M (BTCUSDT). A header is not trusted blindly: each column
that is read must be called what it is.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from adapters.binance.config import Market
from adapters.shared.refusals import Place, listed, refusal
from daemon.core.errors import Code

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from adapters.binance.archive_names import ArchiveName

_TRADE = ("id", "price", "qty", "quoteQty", "time", "isBuyerMaker")
_COIN_TRADE = ("id", "price", "qty", "baseQty", "time", "isBuyerMaker")
_AGG_TRADE = ("id", "price", "qty", "firstId", "lastId", "time", "isBuyerMaker")
_KLINE = ("openTime", "open", "high", "low", "close", "volume", "closeTime", "quoteVolume", "count")
_COIN_KLINE = ("openTime", "open", "high", "low", "close", "contracts", "closeTime", "volume", "count")
_TAKER = ("takerBuyBase", "takerBuyQuote", "ignore")

_FIELDS: Final[dict[str, dict[Market, tuple[str, ...]]]] = {
    "trades": {Market.SPOT: (*_TRADE, "isBestMatch"), Market.UM: _TRADE, Market.CM: _COIN_TRADE},
    "aggTrades": {Market.SPOT: (*_AGG_TRADE, "isBestMatch"), Market.UM: _AGG_TRADE, Market.CM: _AGG_TRADE},
    "klines": {Market.SPOT: (*_KLINE, *_TAKER), Market.UM: (*_KLINE, *_TAKER), Market.CM: (*_COIN_KLINE, *_TAKER)},
}

# Names in headers, without case and punctuation; "quoteQty" and the like are not read, so they may be called anything.
_HEADER_NAMES: Final = {
    "id": {"id", "tradeid", "aggtradeid"},
    "price": {"price"},
    "qty": {"qty", "quantity"},
    "firstId": {"firsttradeid", "firstid"},
    "lastId": {"lasttradeid", "lastid"},
    "time": {"time", "transacttime", "timestamp"},
    "isBuyerMaker": {"isbuyermaker"},
    "isBestMatch": {"isbestmatch"},
    "openTime": {"opentime"},
    "open": {"open"},
    "high": {"high"},
    "low": {"low"},
    "close": {"close"},
    "volume": {"volume"},
    "closeTime": {"closetime"},
}
# Headers of COIN-M klines call the base volume what USD-M calls the quote volume.
_COIN_HEADER_NAMES: Final = _HEADER_NAMES | {
    "volume": {"basevolume", "baseassetvolume", "quotevolume", "quoteassetvolume"}
}
_COIN_SYMBOL = re.compile(r"[A-Z0-9]+USD_(PERP|\d{6})", re.ASCII)
_UM_FOLDERS = {"um", "futures-um"}
_CM_FOLDERS = {"cm", "futures-cm"}
# Their files are called what klines are called, but hold prices that nobody traded at.
_OTHER_KLINES = {"markPriceKlines", "indexPriceKlines", "premiumIndexKlines"}


class Layout(NamedTuple):
    """How a file's text is laid out. body_line: the number of the first line below the header, if there is one."""

    market: Market | None
    fields: tuple[str, ...]
    body_line: int


def find_layout(first_line: str, name: ArchiveName, path: Path, file: str) -> Layout:
    """Tell a file's columns by its first line, its name, and the folders that the archive itself has it in.

    market is None for klines whose market does not show: spot and USD-M klines look alike.
    SourceDataInvalid SOURCE_COLUMN_MISSING for columns that no archive file of the kind has, SOURCE_UNREADABLE for
    klines of mark or index prices.
    """
    if name.kind == "klines" and (others := _OTHER_KLINES & set(path.parts)):
        why = f"it lies in {listed(others)}: such klines are no trades' prices; take the files of klines"
        raise refusal(Code.SOURCE_UNREADABLE, Place(file), why)
    first_line = first_line.strip("\ufeff\r\n")
    cells = first_line.split(",")
    has_header = first_line[:1] not in set("-0123456789")
    markets = [market for market, fields in _FIELDS[name.kind].items() if len(fields) == len(cells)]
    coin = _COIN_SYMBOL.fullmatch(name.symbol) is not None
    markets = [market for market in markets if (market is Market.CM) == coin]
    if not markets:
        counts = sorted({len(fields) for fields in _FIELDS[name.kind].values()})
        why = f"{len(cells)} columns, where files of {name.kind} have {' or '.join(map(str, counts))} (found "
        why += f"{listed(cells)}); download it again"
        raise refusal(Code.SOURCE_COLUMN_MISSING, Place(file, 1), why)
    fields = _FIELDS[name.kind][markets[0]]
    if has_header:
        _require_names(cells, fields, _COIN_HEADER_NAMES if coin else _HEADER_NAMES, file)
    market = markets[0] if len(markets) == 1 else _market_of_folder(path)
    if market is None and has_header:
        market = Market.UM  # No spot file has a header.
    return Layout(market, fields, 2 if has_header else 1)


def _market_of_folder(path: Path) -> Market | None:
    """Read the archive's own folders: data/spot/..., data/futures/um/..."""
    folders = set(path.parts[:-1])
    found: list[Market] = []
    if "spot" in folders:
        found.append(Market.SPOT)
    if folders & _UM_FOLDERS:
        found.append(Market.UM)
    if folders & _CM_FOLDERS:
        found.append(Market.CM)
    return found[0] if len(found) == 1 else None


def _require_names(cells: list[str], fields: tuple[str, ...], names: Mapping[str, set[str]], file: str) -> None:
    for position, (cell, field) in enumerate(zip(cells, fields, strict=True), 1):
        written = re.sub(r"[^a-z0-9]", "", cell.lower())
        if field in names and written not in names[field]:
            why = f"column {position} is called {listed([cell])}, where {field} belongs (found {listed(cells)})"
            why += "; put the columns into the order in which they were published"
            raise refusal(Code.SOURCE_COLUMN_MISSING, Place(file, 1), why, field=field)
