"""Backtests: submitted, queued, worked off, stored whole, cancelled, deleted; the queue survives the process.

A submission is on disk before its id is told. That a backtest is running is written within STARTED_WITHIN_S, with
whatever else is committed; nobody waits for it. So a process that is killed leaves every backtest that ran for longer
marked as running, and the next one queues it again, until it has been started MOST_ATTEMPTS times: what takes the
process down with it must not do so for ever. Stopping the daemon in order costs no attempt. A result, its columns, the
last state and the fact that it has ended are one transaction; the worker packs them, this process copies bytes.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from daemon.core.errors import AtlasError, Code, Conflict, InvalidRequest, JobFailed
from daemon.research import announcing
from daemon.research import backtest_records as records
from daemon.research.backtest_config.fields import text
from daemon.research.backtest_memory import memory_bound
from daemon.research.backtest_records import BacktestJob, Finished, Request, StoredBacktest
from daemon.research.backtest_result import BacktestStatus
from daemon.research.backtest_states import Active, changed, failed, settled
from daemon.research.budgets import USUAL, Budget, budget_for
from daemon.research.parameters import read_specification
from daemon.research.plans import RUN_ID_PATTERN
from daemon.research.runs import SPOOL_FOLDER
from daemon.store.group_commit import GroupCommit, together
from daemon.store.journal import UNHEARD

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future

    from daemon.core.backtest import BacktestSpec
    from daemon.core.events import Event
    from daemon.core.market import TsNs
    from daemon.core.strategy import RiskProfile
    from daemon.research.backtest_records import BacktestProgress
    from daemon.research.backtest_result import BacktestResult, Priority, Status
    from daemon.research.executors import Executor
    from daemon.research.strategies import RuleBook
    from daemon.store.bars import BarStore
    from daemon.store.env import Environment, Transaction
    from daemon.store.journal import Announcement, Announcer

_log = logging.getLogger(__name__)

STARTED_WITHIN_S: Final = 0.1

# How long `cancel` waits for a running backtest to end before it answers.
_CANCEL_S: Final = 15.0
_MIB: Final = 1 << 20
_NS_PER_MS: Final = 1_000_000


class Backtests:
    """All backtests of one store. Methods may be called from any thread.

    resumes: whether backtests that an earlier process left are worked off here; otherwise they stay queued for one
    that does. There is one of these for a store at a time, under the writer lock, and `Runs` is made before it: that
    one clears the spool folder.

    budget: what a backtest of a strategy of the user's own may take. journal: gets the fact of every end, with the
    state that ends. publish: told progress, ten times a second a backtest at the most, from the thread that has it.
    """

    def __init__(
        self,
        env: Environment,
        bars: BarStore,
        book: RuleBook,
        profiles: Mapping[str, RiskProfile],
        executor: Executor,
        *,
        resumes: bool = True,
        budget: Budget = USUAL,
        now_ns: Callable[[], TsNs] = time.time_ns,
        journal: Announcer = UNHEARD,
        publish: Callable[[Event], None] = announcing.nobody,
    ) -> None:
        self._env = env
        self._bars = bars
        self._book = book
        self._profiles = profiles
        self._executor = executor
        self._budget = budget
        self._now_ns = now_ns
        self._journal = journal
        self._publish = publish
        self._commits = GroupCommit(env)
        self._active: dict[str, Active] = {}
        self._unstored: dict[str, BacktestStatus] = {}
        self._changed = threading.Condition()
        self._is_closing = False
        self._spool = env.path.parent / SPOOL_FOLDER
        self._sequence = self._recover(resumes=resumes)

    # Commands.

    def submit(
        self,
        config: Mapping[str, Any],
        priority: Priority = "normal",
        *,
        name: str | None = None,
        backtest_id: str | None = None,
    ) -> BacktestStatus:
        """Check, store and queue a backtest; it is on disk when this returns.

        name, backtest_id: go before those of the configuration; without an id there is a new one.
        InvalidRequest or NotFound as `read_specification` says; InvalidRequest MEMORY_BOUND_EXCEEDED where it could
        never run; Conflict BACKTEST_EXISTS where the id is taken.
        """
        spec = read_specification(config, self._bars, self._book, self._profiles)
        wanted = backtest_id if backtest_id is not None else config.get("id")
        if name is not None:
            spec = msgspec.structs.replace(spec, name=text(name, "name"))
        memory_bytes = memory_bound(spec, self._bars)
        self._executor.check(memory_bytes)
        self._book.pin(spec)
        active = self._reserve(_checked_id(wanted), spec, priority, memory_bytes)
        status = active.state.status
        request = Request(dict(config), spec)

        def store(transaction: Transaction) -> None:
            records.put_request(transaction, status.id, request)
            records.put_state(transaction, active.state)

        try:
            self._commits.commit(store)
        except AtlasError:
            self._forget(status.id)
            raise
        self._publish(announcing.backtest_progress(status))
        self._start(active)
        return status

    def cancel(self, backtest_id: str) -> BacktestStatus:
        """End a backtest that is queued or running, and wait until it has; NotFound where the id is unknown.

        Conflict BACKTEST_FINISHED where there is nothing to cancel, or where that is being done already.
        """
        with self._changed:
            active = self._active.get(backtest_id)
            if active is not None and not active.is_kept:  # where it is being submitted, its future is a moment away
                self._changed.wait_for(lambda: active.future or self._active.get(backtest_id) is not active)
            repeated = active is not None and active.cancelled.is_set()
            if active is not None:
                active.cancelled.set()
        if active is None or repeated:
            state = "being cancelled already" if repeated else self.status(backtest_id).status
            raise Conflict(Code.BACKTEST_FINISHED, f"backtest {backtest_id} is {state}: there is nothing to cancel")
        if active.is_kept:
            self._failed(active, JobFailed(Code.CANCELLED, "it was cancelled"))
        elif active.future is not None:
            active.future.cancel()
        self.wait(backtest_id, _CANCEL_S)
        return self.status(backtest_id)

    def delete(self, backtest_id: str) -> BacktestStatus:
        """Remove a backtest that has ended, with its results; Conflict BACKTEST_ACTIVE where it has not."""
        if backtest_id in self._active:
            raise Conflict(Code.BACKTEST_ACTIVE, f"backtest {backtest_id} has not ended: wait for it or cancel it")
        status = self.status(backtest_id)
        self._commits.commit(lambda transaction: records.remove(transaction, backtest_id))
        self._unstored.pop(backtest_id, None)
        return status

    def wait(self, backtest_id: str, timeout_s: float | None = None) -> bool:
        """Wait until a backtest has ended; False where the time ran out first, or the daemon stopped."""
        with self._changed:
            self._changed.wait_for(lambda: backtest_id not in self._active or self._is_closing, timeout_s)
            return backtest_id not in self._active

    def close(self) -> None:
        """Stop the executor; what has not ended is queued again when a process next takes up the queue."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._executor.close()
        self._commits.close()

    # Questions.

    def status(self, backtest_id: str) -> BacktestStatus:
        """Tell how a backtest is doing; NotFound BACKTEST_NOT_FOUND."""
        active = self._active.get(backtest_id)
        if active is not None:
            return active.status()
        if (unstored := self._unstored.get(backtest_id)) is not None:
            return unstored
        with self._env.read() as transaction:
            return records.stored_state(transaction, backtest_id).status

    def all(self, status: Status | None = None) -> list[BacktestStatus]:
        """Return all backtests, or those of one status, the newest first."""
        with self._changed:
            active = dict(self._active)  # first: what is not in it has its last state on disk
        found = [(each.state.sequence, each.status()) for each in active.values()]
        with self._env.read() as transaction:
            found += [
                (state.sequence, self._unstored.get(state.status.id, state.status))
                for state in records.stored_states(transaction, active)
            ]
        found.sort(key=lambda each: each[0], reverse=True)
        return [each for _, each in found if status is None or each.status == status]

    def counts(self) -> Counter[Status]:
        """Count the backtests that have not ended, by status."""
        return Counter(each.state.status.status for each in dict(self._active).values())

    def result(self, backtest_id: str) -> BacktestResult:
        """Return a result; NotFound BACKTEST_NOT_FOUND, Conflict BACKTEST_NOT_FINISHED where there is none."""
        active = self._active.get(backtest_id)
        if active is not None:
            raise records.no_result(active.status())
        if (unstored := self._unstored.get(backtest_id)) is not None:
            raise records.no_result(unstored)
        with self._env.read() as transaction:
            return records.stored_result(transaction, backtest_id)

    # Into the queue.

    def _reserve(self, wanted: str | None, spec: BacktestSpec, priority: Priority, memory_bytes: int) -> Active:
        """Take an id and a place in the order; Conflict BACKTEST_EXISTS."""
        with self._changed, self._env.read() as transaction:

            def is_taken(backtest_id: str) -> bool:
                return backtest_id in self._active or records.is_stored(transaction, backtest_id)

            backtest_id = wanted if wanted is not None else uuid.uuid4().hex[:8]
            while wanted is None and is_taken(backtest_id):
                backtest_id = uuid.uuid4().hex[:8]
            if is_taken(backtest_id):
                raise Conflict(
                    Code.BACKTEST_EXISTS,
                    f"there is a backtest {backtest_id}: leave `id` out, choose another, or delete that backtest",
                    {"id": backtest_id},
                )
            self._sequence += 1
            status = BacktestStatus(
                id=backtest_id,
                name=spec.name,
                status="queued",
                priority=priority,
                progress=0.0,
                created_at=self._now_ms(),
                memory_bound_mb=round(memory_bytes / _MIB, 1),
                symbols=[market.instrument.key for market in spec.markets],
                timeframe=str(spec.timeframe),
            )
            active = self._active[backtest_id] = Active(StoredBacktest(self._sequence, memory_bytes, status))
        return active

    def _start(self, active: Active) -> None:
        """Hand a stored backtest to the executor; InvalidRequest where it never fits, such as after a restart."""
        status = active.state.status
        # Never used again: a worker that outlives a killed daemon may still write to its own, or remove it.
        spool = self._spool / f"{uuid.uuid4().hex}.spool"

        def job() -> BacktestJob:
            # Read when its turn has come: ten thousand that wait do not fill the memory with what they are to do.
            with self._env.read() as transaction:
                request = records.stored_request(transaction, status.id)
            budget = budget_for(request.spec, self._budget)
            return BacktestJob(status.id, request.spec, str(spool), request.config, dict(self._profiles), budget)

        future = self._executor.submit(
            job,
            partial(self._told, active),
            active.cancelled,
            priority=status.priority,
            memory_bytes=active.state.memory_bytes,
            started=partial(self._started, active),
        )
        with self._changed:
            active.future = future
            self._changed.notify_all()
        future.add_done_callback(partial(self._ended, active, spool))

    def _recover(self, *, resumes: bool) -> int:
        """Settle what an earlier process left, and queue it where it is to go on; returns the last place taken."""
        with self._env.read() as transaction:
            states = list(records.stored_states(transaction))
        unended = sorted(
            (state for state in states if state.status.completed_at is None), key=lambda state: state.sequence
        )
        left = [settled(state, self._now_ms()) for state in unended]
        announced = [self._announced(state) for state in left if state.status.status == "failed"]
        if left != unended:
            states_left = [partial(records.put_state, state=state) for state in left]
            self._env.write(together(*states_left, *(each.put for each in announced)))
        for each in announced:
            each.tell()
        for state in left:
            if state.status.status == "queued":
                active = self._active[state.status.id] = Active(state, is_kept=not resumes)
                if resumes:
                    try:
                        self._start(active)
                    except AtlasError as error:
                        self._failed(active, error)
        return max((state.sequence for state in states), default=0)

    # Out of the queue. These run on whatever thread ran, or cancelled, the job.

    def _started(self, active: Active) -> None:
        active.started_s = time.monotonic()
        attempts = active.state.status.attempts + 1
        running = changed(active.state, status="running", attempts=attempts, started_at=self._now_ms())
        active.state = running
        self._commits.post(lambda transaction: records.put_state(transaction, running), within_s=STARTED_WITHIN_S)
        self._publish(announcing.backtest_progress(running.status))

    def _told(self, active: Active, progress: BacktestProgress) -> None:
        active.progress = progress
        self._publish(announcing.backtest_progress(active.status()))

    def _ended(self, active: Active, spool: Path, future: Future[Finished]) -> None:
        try:
            self._completed(active, future.result(), spool)
        except CancelledError:
            self._failed(active, JobFailed(Code.CANCELLED, "it was cancelled"), spool)
        except AtlasError as error:
            if error.code == Code.INTERRUPTED:
                self._interrupted(active, spool)
            else:
                self._failed(active, error, spool)
        except Exception as error:  # noqa: BLE001
            # The last frame of a worker thread: a defect fails the backtest instead of vanishing.
            _log.exception("backtest %s failed", active.state.status.id)
            self._failed(active, JobFailed(Code.INTERNAL, repr(error)), spool)

    def _completed(self, active: Active, finished: Finished, spool: Path) -> None:
        ended = changed(
            active.state,
            status="completed",
            progress=100.0,
            completed_at=self._now_ms(),
            events_processed=finished.events,
            total_return_percent=finished.total_return_percent,
            sharpe_ratio=finished.sharpe_ratio,
            max_drawdown_percent=finished.max_drawdown_percent,
            total_trades=finished.total_trades,
            fingerprint=finished.fingerprint,
            notes=finished.notes,
            verdict=finished.verdict,
        )

        announced = self._announced(ended)

        def finish(transaction: Transaction) -> None:
            records.put_finished(transaction, ended, finished, spool)

        def stored(error: AtlasError | None) -> None:
            if error is None:
                self._settle(active, ended, announced, spool)
            else:  # a state is small: there may be room for it where there was none for the result
                self._unfinished(active, failed(active.state, error, self._now_ms()), spool)

        self._commits.post(together(finish, announced.put), stored)

    def _failed(self, active: Active, error: AtlasError, spool: Path | None = None) -> None:
        ended = failed(active.state, error, self._now_ms())
        announced = self._announced(ended)
        self._commits.post(
            together(partial(records.put_state, state=ended), announced.put),
            partial(self._settle, active, ended, announced, spool),
        )

    def _unfinished(self, active: Active, ended: StoredBacktest, spool: Path) -> None:
        """Store the failure of a backtest whose result could not be, at once, on the committing thread."""
        announced, unstored = self._announced(ended), None
        try:
            self._env.write(together(partial(records.put_state, state=ended), announced.put))
        except AtlasError as error:
            unstored = error
        self._settle(active, ended, announced, spool, unstored)

    def _announced(self, ended: StoredBacktest) -> Announcement:
        return self._journal.announce(announcing.backtest_end(ended.status))

    def _interrupted(self, active: Active, spool: Path) -> None:
        """Leave a backtest queued that the end of this process, in order, kept from ending."""
        was_running = active.state.status.status == "running"
        with suppress(OSError):
            spool.unlink()
        active.progress = None
        active.is_kept = True
        if was_running:
            attempts = active.state.status.attempts - 1
            queued = active.state = changed(active.state, status="queued", attempts=attempts, started_at=None)
            self._commits.post(lambda transaction: records.put_state(transaction, queued))

    def _settle(
        self,
        active: Active,
        ended: StoredBacktest,
        announced: Announcement,
        spool: Path | None,
        error: AtlasError | None = None,
    ) -> None:
        """Let go of a backtest whose last state is on disk, then tell: who hears of it may ask for it, or delete it."""
        status = ended.status
        if error is not None:
            # Told from memory while this process lives; the next one finds it as it was, and works it off again.
            _log.error("backtest %s ended, but its state could not be stored: %s", status.id, error.message)
            self._unstored[status.id] = status
        if spool is not None:
            with suppress(OSError):  # what stays behind is removed at the next start
                spool.unlink()
        active.state = ended
        self._forget(status.id)
        _log.info("backtest %s %s", status.id, status.status)
        if error is None:
            announced.tell()
        else:  # no fact, for the next process works it off again
            self._publish(announcing.backtest_progress(status))

    def _forget(self, backtest_id: str) -> None:
        with self._changed:
            self._active.pop(backtest_id, None)
            self._changed.notify_all()

    def _now_ms(self) -> int:
        return self._now_ns() // _NS_PER_MS


def _checked_id(wanted: Any) -> str | None:
    if wanted is None or (isinstance(wanted, str) and RUN_ID_PATTERN.fullmatch(wanted)):
        return wanted
    raise InvalidRequest(
        Code.INVALID_CONFIGURATION,
        f"id `{str(wanted)[:60]}` may have letters, digits and ._- only, 1 to 50 of them",
        {"field": "id"},
    )
