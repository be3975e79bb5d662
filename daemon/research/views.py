"""Stored results as rows that people and programs read: named, filtered, in blocks, from any place on.

Blocks are columns; whoever writes JSON, CSV or Parquet turns them into rows at the last moment.

How far a result can be told from luck depends on everything else that was tried, so a walk corrects for the whole run
before its first row: filters, pages and places to begin at do not change what a row says.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from daemon.core.errors import Code, Conflict, InvalidRequest, NotFound
from daemon.core.market import Timeframe
from daemon.core.strategy import EXIT_REASONS, LONG, SIDES
from daemon.research.justify import entry_reason, exit_reason
from daemon.research.plans import parse_timeframe
from daemon.research.ranking import gains
from daemon.research.strategies import digest
from daemon.store import results
from daemon.store.instruments import parse_instrument
from daemon.store.keys import ResultKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from daemon.research.ranking import Direction
    from daemon.research.records import Run
    from daemon.research.strategies import RuleBook
    from daemon.store.env import Environment
    from daemon.store.results import Part, StoredJob

BLOCK_ROWS: Final = 8_192

GROUP_NAMES: Final = (
    "run_id", "symbol", "strategy_id", "strategy_name", "timeframe", "risk_profile", "open_day", "open_hour",
    "long_short", "num_trades", "pnl_mean", "pnl_std", "max_drawdown", "max_profit", "period_start", "period_end",
    "p_adjusted", "false_discovery",
)  # fmt: skip
TRADE_NAMES: Final = (
    "strategy_id", "strategy_name", "symbol", "timeframe", "risk_profile", "entry_time", "exit_time", "entry_price",
    "exit_price", "direction", "pnl", "pnl_pct", "bars_held", "max_drawdown", "max_profit", "pnl_std", "exit_reason",
)  # fmt: skip

Block = dict[str, NDArray[Any]]
"""Equally long columns by name: datetime64[ns] UTC times, datetime64[D] days, numbers, object strings."""


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows to show; None shows all."""

    symbol: str | None = None
    timeframe: str | None = None
    strategy_id: int | None = None
    risk_profile: str | None = None


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """A place in a run's rows: job, part, row."""

    instrument: str
    timeframe: str
    batch: int
    part: int
    row: int

    def encode(self) -> str:
        """Return the text that clients pass back."""
        return base64.urlsafe_b64encode(msgspec.msgpack.encode(self)).decode().rstrip("=")

    @staticmethod
    def decode(text: str) -> Cursor:
        """Read a client's text; InvalidRequest INVALID_CURSOR."""
        try:
            cursor = msgspec.msgpack.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=Cursor)
            Timeframe(cursor.timeframe)
        except (binascii.Error, ValueError, msgspec.MsgspecError):
            raise InvalidRequest(
                Code.INVALID_CURSOR,
                "the cursor is not one that this run's list returned",
                {"field": "cursor"},
            ) from None
        return cursor


class _Luck(NamedTuple):
    """How far the run's combinations, job after job, can be told from luck as gains: see `ranking.Direction`.

    begins: where each job's combinations begin, by `_order`.
    """

    begins: dict[tuple[str, int, int], int]
    gains: Direction

    def columns(self, job: StoredJob, combination: NDArray[Any]) -> Block:
        """Return the columns of some of a job's combinations."""
        rows = self.begins[_order(job)] + combination.astype(np.int64)
        return {"p_adjusted": self.gains.adjusted[rows], "false_discovery": self.gains.false_discovery[rows]}


class RunRows:
    """Groups or trades of one run, one walk at a time.

    next_cursor: after a walk that `limit` ended, where the next begins; None where nothing is left.
    """

    def __init__(self, env: Environment, run: Run, book: RuleBook, filters: Filters) -> None:
        self._env = env
        self._run = run
        self._book = book
        self._filters = filters
        self.next_cursor: Cursor | None = None
        if filters.timeframe is not None and parse_timeframe(filters.timeframe) not in run.timeframes:
            raise InvalidRequest(
                Code.INVALID_TIMEFRAME,
                f"timeframe `{filters.timeframe}` is not in run {run.run_id}: {', '.join(run.timeframes)}",
            )
        if filters.risk_profile is not None and filters.risk_profile not in run.risk_profiles:
            raise InvalidRequest(
                Code.INVALID_RISK_PROFILE,
                f"risk profile `{filters.risk_profile}` is not in run {run.run_id}: {', '.join(run.risk_profiles)}",
            )
        if filters.strategy_id is not None and filters.strategy_id not in run.rules:
            raise NotFound(Code.INVALID_STRATEGY, f"Strategy {filters.strategy_id} is not in run {run.run_id}")
        self._symbol = None if filters.symbol is None else parse_instrument(filters.symbol)
        if self._symbol is not None and not any(self._is_symbol(key) for key in run.symbols):
            raise NotFound(
                Code.INVALID_SYMBOL,
                f"Symbol {filters.symbol} not found in run {run.run_id}: {', '.join(run.symbols)}",
            )

    def groups(self, start: Cursor | None = None, limit: int | None = None) -> Iterator[Block]:
        """Walk group rows from `start` on in blocks; `limit` rows at most, None for all."""
        jobs = self._jobs()
        luck = self._luck(jobs)

        def convert(job: StoredJob, columns: Block) -> Block:
            return self._group_block(job, columns) | luck.columns(job, columns["combination"])

        yield from self._walk(jobs, ResultKind.GROUPS, convert, start, limit)

    def trades(
        self, start: Cursor | None = None, limit: int | None = None, *, justify: bool = False
    ) -> Iterator[Block]:
        """Walk trade rows; `justify` adds words on why each was entered and left."""

        def convert(job: StoredJob, columns: Block) -> Block:
            return self._trade_block(job, columns, justify=justify)

        yield from self._walk(self._jobs(), ResultKind.TRADES, convert, start, limit)

    def _walk(
        self,
        jobs: list[StoredJob],
        kind: ResultKind,
        convert: Callable[[StoredJob, Block], Block],
        start: Cursor | None,
        limit: int | None,
    ) -> Iterator[Block]:
        """One short snapshot a part: a slow reader must not pin the store's pages."""
        self.next_cursor = None
        left = limit
        for job, part in self._parts(jobs, kind, start):
            with self._env.read() as transaction:
                columns = results.read_part(transaction, job, part)
            kept = np.flatnonzero(self._wanted(job)[columns["combination"]])
            if start is not None and (*_order(job), part.number) == _start_order(start):
                kept = kept[kept >= start.row]
            while kept.size:
                if left == 0:
                    place = job.index.instrument, job.index.timeframe, job.batch, part.number, int(kept[0])
                    self.next_cursor = Cursor(*place)
                    return
                rows = kept[: BLOCK_ROWS if left is None else min(BLOCK_ROWS, left)]
                yield convert(job, {name: column[rows] for name, column in columns.items()})
                kept = kept[rows.size :]
                left = None if left is None else left - rows.size

    def _jobs(self) -> list[StoredJob]:
        with self._env.read() as transaction:
            return sorted(results.jobs(transaction, self._run.run_id), key=_order)

    def _luck(self, jobs: list[StoredJob]) -> _Luck:
        found = gains([job.index for job in jobs], self._run.total_combinations)
        begins = np.cumsum([0, *(len(job.index.totals.trades) for job in jobs)]).tolist()
        return _Luck(dict(zip(map(_order, jobs), begins, strict=False)), found)

    def _parts(self, jobs: list[StoredJob], kind: ResultKind, start: Cursor | None) -> Iterator[tuple[StoredJob, Part]]:
        for job in jobs:
            if self._symbol is not None and not self._is_symbol(job.index.instrument):
                continue
            if self._filters.timeframe not in (None, job.index.timeframe):
                continue
            wanted = self._wanted(job)
            for part in job.index.parts:
                if part.kind != kind or not wanted[part.first : part.stop].any():
                    continue
                if start is None or (*_order(job), part.number) >= _start_order(start):
                    yield job, part

    def _is_symbol(self, key: str) -> bool:
        stored, wanted = parse_instrument(key), self._symbol
        return wanted is not None and stored.symbol == wanted.symbol and wanted.venue in ("", stored.venue)

    def _wanted(self, job: StoredJob) -> NDArray[np.bool_]:
        """Which of the job's combinations the filters keep."""
        totals = job.index.totals
        keep = np.ones(len(totals.strategy_id), dtype=bool)
        if self._filters.strategy_id is not None:
            keep &= np.array(totals.strategy_id) == self._filters.strategy_id
        if self._filters.risk_profile is not None:
            keep &= np.array(totals.risk_profile) == self._filters.risk_profile
        return keep

    def _group_block(self, job: StoredJob, columns: Block) -> Block:
        index = job.index
        rows = columns["combination"].size
        return {
            "run_id": _constant(self._run.run_id, rows),
            "symbol": _constant(index.symbol, rows),
            "strategy_id": self._strategy_ids(job, columns),
            "strategy_name": self._strategy_names(job, columns),
            "timeframe": _constant(index.timeframe, rows),
            "risk_profile": np.array(index.totals.risk_profile, dtype=object)[columns["combination"]],
            "open_day": columns["open_day"].astype("datetime64[D]"),
            "open_hour": columns["open_hour"].astype(np.int64),
            "long_short": _sides(columns["side"]),
            "num_trades": columns["num_trades"].astype(np.int64),
            "pnl_mean": columns["pnl_mean"],
            "pnl_std": columns["pnl_std"],
            "max_drawdown": columns["max_drawdown"],
            "max_profit": columns["max_profit"],
            "period_start": np.full(rows, index.period_start_ns, dtype="datetime64[ns]"),
            "period_end": np.full(rows, index.period_end_ns, dtype="datetime64[ns]"),
        }

    def _trade_block(self, job: StoredJob, columns: Block, *, justify: bool) -> Block:
        index = job.index
        rows = columns["combination"].size
        block = {
            "strategy_id": self._strategy_ids(job, columns),
            "strategy_name": self._strategy_names(job, columns),
            "symbol": _constant(index.symbol, rows),
            "timeframe": _constant(index.timeframe, rows),
            "risk_profile": np.array(index.totals.risk_profile, dtype=object)[columns["combination"]],
            "entry_time": columns["entry_ns"].astype("datetime64[ns]"),
            "exit_time": columns["exit_ns"].astype("datetime64[ns]"),
            "entry_price": columns["entry_price"],
            "exit_price": columns["exit_price"],
            "direction": _sides(columns["side"]),
            "pnl": columns["pnl_pct"] * columns["entry_price"],
            "pnl_pct": columns["pnl_pct"],
            "bars_held": columns["bars_held"].astype(np.int64),
            "max_drawdown": columns["max_drawdown"],
            "max_profit": columns["max_profit"],
            "pnl_std": columns["pnl_std"],
            "exit_reason": np.array(EXIT_REASONS, dtype=object)[columns["reason"]],
        }
        if justify:
            entries, exits = self._words(job, columns)
            block["entry_justification"], block["exit_justification"] = entries, exits
        return block

    def _words(self, job: StoredJob, columns: Block) -> tuple[NDArray[Any], NDArray[Any]]:
        """Words depend on (combination, side, reason) alone, of which a block has few."""
        totals = job.index.totals
        kinds = np.stack([columns["combination"], columns["side"], columns["reason"]], axis=1)
        distinct, which = np.unique(kinds, axis=0, return_inverse=True)
        entries, exits = [], []
        for combination, side, reason in distinct.tolist():
            strategy_id = totals.strategy_id[combination]
            strategy = self._book.get(strategy_id)
            if digest(strategy) != self._run.rules[strategy_id]:
                raise Conflict(
                    Code.RUN_CONFLICT,
                    f"the rules of strategy {strategy_id} changed since run {self._run.run_id}: no justification fits",
                    {"field": "strategy_ids"},
                )
            profile = self._run.risk_profiles[totals.risk_profile[combination]]
            entries.append(entry_reason(strategy, side))
            exits.append(exit_reason(strategy, profile, side, reason))
        return np.array(entries, dtype=object)[which], np.array(exits, dtype=object)[which]

    def _strategy_ids(self, job: StoredJob, columns: Block) -> NDArray[np.int64]:
        return np.array(job.index.totals.strategy_id, dtype=np.int64)[columns["combination"]]

    def _strategy_names(self, job: StoredJob, columns: Block) -> NDArray[Any]:
        names = [self._run.strategy_names[strategy_id] for strategy_id in job.index.totals.strategy_id]
        return np.array(names, dtype=object)[columns["combination"]]


def texts(block: Block) -> dict[str, list[Any]]:
    """Turn a block into plain Python columns: times as ISO 8601 with Z, days as dates, numbers, None where NaN."""
    plain: dict[str, list[Any]] = {}
    for name, column in block.items():
        if column.dtype == np.dtype("datetime64[ns]"):
            plain[name] = [text + "Z" for text in np.datetime_as_string(column, unit="s").tolist()]
        elif column.dtype == np.dtype("datetime64[D]"):
            plain[name] = np.datetime_as_string(column).tolist()
        elif column.dtype == np.float64 and np.isnan(column).any():
            values = column.astype(object)
            values[np.isnan(column)] = None
            plain[name] = values.tolist()
        else:
            plain[name] = column.tolist()
    return plain


def _order(job: StoredJob) -> tuple[str, int, int]:
    return job.index.instrument, Timeframe(job.index.timeframe).ns, job.batch


def _start_order(cursor: Cursor) -> tuple[str, int, int, int]:
    return cursor.instrument, Timeframe(cursor.timeframe).ns, cursor.batch, cursor.part


def _sides(side: NDArray[np.int8]) -> NDArray[Any]:
    return np.where(side == LONG, *(np.array(word, dtype=object) for word in SIDES.values()))


def _constant(text: str, rows: int) -> NDArray[Any]:
    return np.full(rows, text, dtype=object)
