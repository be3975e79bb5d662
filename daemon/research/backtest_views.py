"""A backtest's stored rows as people and programs read them: trades, receipts of fills, equity.

Rows come in blocks of columns from any place on, each chunk from a snapshot of its own: a slow reader must not pin the
store's pages, and no table is held whole. Names and units are those of `backtest_result`. `backtest_formats` writes
them down.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias, get_args, get_type_hints

import msgspec
import numpy as np
from numpy.typing import NDArray

from daemon.core.backtest import EXIT_WORDS, Reason
from daemon.core.errors import Code, InvalidRequest, NotFound
from daemon.core.strategy import LONG
from daemon.research import backtest_records as records
from daemon.research.backtest_result import EquityPoint, Receipt, Trade
from daemon.store import backtests as tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from daemon.store.env import Environment

View: TypeAlias = Literal["trades", "receipts", "equity"]
VIEWS: Final[tuple[View, ...]] = get_args(View)

BLOCK_ROWS: Final = 8_192
_NS_PER_MS: Final = 1_000_000
_NOTHING: Final = -1
_END_NOTE: Final = "end of data"

_ROWS: Final[dict[View, type[msgspec.Struct]]] = {"trades": Trade, "receipts": Receipt, "equity": EquityPoint}
_TABLES: Final[dict[View, tables.Table]] = {"trades": "trades", "receipts": "fills", "equity": "equity"}
_TIMES: Final = frozenset({"timestamp", "decidedAt", "entryTime", "exitTime"})

# Words of stored numbers; of references those of `engine.orders.Reference`, which is slow to load.
_REASONS: Final = [EXIT_WORDS.get(reason, "entry") for reason in Reason]
REFERENCES: Final = ("open", "level", "trade", "quote", "close", "book")

Block: TypeAlias = dict[str, NDArray[Any]]
"""Equally long columns by the names of the app: times int64 ns, numbers (NaN for none), booleans, object texts."""


class Column(NamedTuple):
    """A column of a view. kind: time, int, float, bool or str. is_nullable: whether it may have no value."""

    name: str
    kind: Literal["time", "int", "float", "bool", "str"]
    is_nullable: bool


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """A place before a row of a table of one backtest, as one filter shows it."""

    backtest_id: str
    view: View
    trade: int | None
    row: int

    def encode(self) -> str:
        """Return the text that clients pass back."""
        return base64.urlsafe_b64encode(msgspec.msgpack.encode(self)).decode().rstrip("=")


def columns(view: View) -> list[Column]:
    """Return the columns of a view, in order."""
    row = _ROWS[view]
    hints = get_type_hints(row)
    found = []
    for name, wire in zip(row.__struct_fields__, row.__struct_encode_fields__, strict=True):
        kinds = set(get_args(hints[name])) - {type(None)} or {hints[name]}
        kind: Any = "time" if wire in _TIMES else "str"
        if wire not in _TIMES and len(kinds) == 1:
            kind = getattr(next(iter(kinds)), "__name__", "str")
        found.append(Column(wire, kind, type(None) in get_args(hints[name])))
    return found


class BacktestRows:
    """Rows of one table of one completed backtest, one walk at a time.

    trade: of receipts, only those of this trade. limit: rows at most, None for all. cursor: from `next_cursor`, to go
    on behind an earlier walk.
    next_cursor: after a walk that the limit ended, where the next begins; None where nothing is left.
    NotFound BACKTEST_NOT_FOUND, Conflict BACKTEST_NOT_FINISHED, InvalidRequest INVALID_CURSOR.
    """

    def __init__(
        self,
        env: Environment,
        backtest_id: str,
        view: View,
        *,
        trade: int | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> None:
        self.columns = columns(view)
        self.next_cursor: str | None = None
        self._env = env
        self._id = backtest_id
        self._view: View = view
        self._trade = trade
        self._limit = limit
        with env.read() as transaction:
            status = records.stored_state(transaction, backtest_id).status
            if status.status != "completed":
                raise records.no_result(status)
            self._parts = tables.parts(transaction, backtest_id, _TABLES[view])
            self._model = _model(records.stored_fields(transaction, backtest_id)) if view == "receipts" else ""
        self._symbols = status.symbols
        self._start = 0 if cursor is None else self._place(cursor)

    def blocks(self) -> Iterator[Block]:
        """Walk the rows in order; a block may be empty, so that no step takes long."""
        self.next_cursor = None
        first, left = 0, self._limit
        for part in self._parts:
            if first + part.rows > self._start:
                stored = self._read(part)
                kept = np.flatnonzero(self._wanted(stored, part.rows))
                kept = kept[kept >= self._start - first]
                if not kept.size:
                    yield self._block({name: column[:0] for name, column in stored.items()})
                while kept.size:
                    if left == 0:
                        self.next_cursor = Cursor(self._id, self._view, self._trade, first + int(kept[0])).encode()
                        return
                    rows = kept[: BLOCK_ROWS if left is None else min(BLOCK_ROWS, left)]
                    yield self._block({name: column[rows] for name, column in stored.items()})
                    kept = kept[rows.size :]
                    left = None if left is None else left - rows.size
            first += part.rows

    def _read(self, part: tables.ColumnPart) -> Block:
        with self._env.read() as transaction:
            if tables.parts(transaction, self._id, part.table) != self._parts:
                raise NotFound(Code.BACKTEST_NOT_FOUND, f"backtest {self._id} was deleted while its rows were read")
            return tables.read_part(transaction, self._id, part)

    def _wanted(self, stored: Block, rows: int) -> NDArray[np.bool_]:
        return np.ones(rows, dtype=bool) if self._trade is None else stored["trade_id"] == self._trade

    def _block(self, stored: Block) -> Block:
        return block_of(self._view, stored, self._symbols, self._model)

    def _place(self, text: str) -> int:
        mine = self._id, self._view, self._trade
        try:
            cursor = msgspec.msgpack.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=Cursor)
            is_mine = (cursor.backtest_id, cursor.view, cursor.trade) == mine
            if not is_mine or not 0 < cursor.row < sum(part.rows for part in self._parts):
                raise ValueError
        except (binascii.Error, ValueError, msgspec.MsgspecError):
            raise InvalidRequest(
                Code.INVALID_CURSOR,
                f"the cursor is not one that the {self._view} of backtest {self._id} returned: start without one",
                {"field": "cursor"},
            ) from None
        return cursor.row


class _Costs(msgspec.Struct):
    model: dict[str, Any]


def _model(fields: dict[str, msgspec.Raw]) -> str:
    """Name the slippage model of a result."""
    return str(msgspec.msgpack.decode(fields["costs"], type=_Costs).model["slippage"]["model"])


# Stored columns to those of the views.


def block_of(view: View, stored: Block, symbols: Sequence[str], model: str) -> Block:
    """Return a view's columns of stored ones. symbols: of the run, in order. model: of its slippage."""
    match view:
        case "trades":
            made = _trades(stored, symbols)
        case "receipts":
            made = _receipts(stored, symbols, model)
        case "equity":
            made = _equity(stored)
    return {column.name: made[column.name] for column in columns(view)}


def _trades(stored: Block, symbols: Sequence[str]) -> Block:
    rows = stored["id"].size
    is_end = stored["is_end"].astype(bool)
    return {
        "id": stored["id"],
        "symbol": _words(symbols, stored["symbol"]),
        "side": np.where(stored["side"] == LONG, _text("long"), _text("short")),
        "entryTime": stored["entry_ns"],
        "entryPrice": stored["entry_price"],
        "entrySlippage": stored["entry_slippage"],
        "entryFees": stored["entry_fees"],
        "exitTime": stored["exit_ns"],
        "exitPrice": stored["exit_price"],
        "exitSlippage": stored["exit_slippage"],
        "exitFees": stored["exit_fees"],
        "exitReason": _words(_REASONS, stored["reason"]),
        "quantity": stored["quantity"],
        "pnl": stored["pnl"],
        "pnlPercent": stored["pnl_percent"],
        "holdTime": stored["exit_ns"] // _NS_PER_MS - stored["entry_ns"] // _NS_PER_MS,
        "maePercent": stored["mae_percent"],
        "mfePercent": stored["mfe_percent"],
        "funding": stored["funding"],
        "crossedGap": stored["crossed_gap"].astype(bool),
        "exitNote": np.where(is_end, _text(_END_NOTE), _text(None)),
        "entryBlock": _nothing(rows),
        "exitBlock": _nothing(rows),
    }


def _receipts(stored: Block, symbols: Sequence[str], model: str) -> Block:
    rows = stored["id"].size
    trade_id = stored["trade_id"].astype(object)
    trade_id[stored["trade_id"] == _NOTHING] = None
    return {
        "id": stored["id"],
        "tradeId": trade_id,
        "orderId": stored["order_id"],
        "symbol": _words(symbols, stored["symbol"]),
        "timestamp": stored["time_ns"],
        "decidedAt": stored["sent_ns"],
        "side": np.where(stored["side"] > 0, _text("buy"), _text("sell")),
        "reason": _words(_REASONS, stored["reason"]),
        "liquidity": np.where(stored["is_maker"].astype(bool), _text("maker"), _text("taker")),
        "quantity": stored["quantity"],
        "remaining": stored["remaining"],
        "reference": _words(REFERENCES, stored["reference_kind"]),
        "referencePrice": stored["reference"],
        "price": stored["price"],
        "slippage": stored["spread"] + stored["impact"],
        "spread": stored["spread"],
        "impact": stored["impact"] + 0.0,  # what a maker sells has one of -0.0
        "fee": stored["fee"],
        "feeRate": stored["fee_rate"],
        "fixedFee": stored["fixed_fee"],
        "model": np.full(rows, model, dtype=object),
        "participation": stored["participation"],
        "volume": stored["volume"],
        "dailyVolatility": stored["sigma"],
        "dailyVolume": stored["day_volume"],
        "cashAfter": stored["cash"],
        "positionAfter": stored["position_quantity"],
    }


def _equity(stored: Block) -> Block:
    return {
        "timestamp": stored["time_ns"],
        "equity": stored["equity"],
        "cash": stored["cash"],
        "positionsValue": stored["positions_value"],
        "unrealizedPnl": stored["unrealized_pnl"],
        "blockNumber": _nothing(stored["time_ns"].size),
    }


def _words(words: Sequence[str], numbers: NDArray[Any]) -> NDArray[Any]:
    written: NDArray[Any] = np.array(words, dtype=object)[numbers]
    return written


def _text(text: str | None) -> NDArray[Any]:
    return np.array(text, dtype=object)


def _nothing(rows: int) -> NDArray[Any]:
    return np.full(rows, None, dtype=object)
