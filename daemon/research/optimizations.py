"""Optimisations: submitted, queued, worked off, stored as they go, cancelled, resumed, deleted.

Points are on disk block by block, so that whatever ends an optimisation - a cancellation, the daemon's end, a crash -
it goes on from there: by itself where the daemon stopped or died, when asked to otherwise.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import CancelledError
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from daemon.core.backtest import Validation
from daemon.core.errors import AtlasError, Code, Conflict, InvalidRequest, JobFailed
from daemon.research import announcing
from daemon.research.backtest_memory import days_of_range, memory_bound
from daemon.research.backtest_states import changed, failed, settled
from daemon.research.budgets import USUAL, Budget, budget_for
from daemon.research.optimization import records
from daemon.research.optimization.records import (
    CELL_BYTES,
    MOST_CELLS,
    SERIES_KEPT,
    OptimizationJob,
    StoredOptimization,
)
from daemon.research.optimization.request import planned
from daemon.research.optimization.result import OptimizationStatus
from daemon.research.optimization_states import Active
from daemon.research.plans import RUN_ID_PATTERN
from daemon.research.swept import swept
from daemon.store.group_commit import GroupCommit, together
from daemon.store.journal import UNHEARD

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future

    from daemon.core.events import Event
    from daemon.core.market import TsNs
    from daemon.core.strategy import RiskProfile
    from daemon.research.executors import Executor
    from daemon.research.optimization.records import OptimizationProgress, Optimized, Rows
    from daemon.research.optimization.request import OptimizationRequest, Plan
    from daemon.research.optimization.result import OptimizationResult
    from daemon.research.strategies import RuleBook
    from daemon.store.bars import BarStore
    from daemon.store.env import Environment, Transaction
    from daemon.store.journal import Announcement, Announcer

_log = logging.getLogger(__name__)

# How long `cancel` waits for a running optimisation to end before it answers.
_CANCEL_S: Final = 15.0
_MIB: Final = 1 << 20
_NS_PER_MS: Final = 1_000_000


class Optimizations:
    """All optimisations of one store. Methods may be called from any thread.

    resumes: whether optimisations that an earlier process left are worked off here. There is one of these for a store
    at a time, under the writer lock. budget: what a strategy of the user's own may take. journal: gets the fact of
    every end, with the state that ends. publish: told progress, from the thread that has it.
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
        self._changed = threading.Condition()
        self._sequence = self._recover(resumes=resumes)

    # Commands.

    def submit(self, request: OptimizationRequest) -> OptimizationStatus:
        """Check, store and queue an optimisation; it is on disk when this returns.

        InvalidRequest or NotFound as `planned` says; InvalidRequest MEMORY_BOUND_EXCEEDED where it could never run;
        Conflict OPTIMIZATION_EXISTS where the id is taken.
        """
        plan = planned(request, self._bars, self._book, self._profiles)
        memory_bytes = _memory_bytes(plan, self._bars)
        self._executor.check(memory_bytes)
        self._book.pin(plan.spec)
        active = self._reserve(request, plan, memory_bytes)
        status = active.state.status

        def store(transaction: Transaction) -> None:
            records.put_plan(transaction, status.id, plan)
            records.put_state(transaction, active.state)

        try:
            self._commits.commit(store)
        except AtlasError:
            self._forget(status.id)
            raise
        self._publish(announcing.optimization_progress(status))
        self._start(active)
        return status

    def resume(self, optimization_id: str) -> OptimizationStatus:
        """Queue an optimisation that was cancelled or failed; it goes on behind the points that are stored.

        So does one that an earlier process left, where this one does not take up such by itself.
        NotFound OPTIMIZATION_NOT_FOUND; Conflict OPTIMIZATION_ACTIVE or OPTIMIZATION_FINISHED.
        """
        with self._changed:
            kept = self._active.get(optimization_id)
            if kept is not None and not kept.is_kept:
                raise self._is_active(optimization_id)
            with self._env.read() as transaction:
                state = kept.state if kept is not None else records.stored_state(transaction, optimization_id)
            if state.status.status == "completed":
                why = f"optimisation {optimization_id} is completed: there is nothing to resume"
                raise Conflict(Code.OPTIMIZATION_FINISHED, why)
            self._executor.check(state.memory_bytes)
            ends = ("started_at", "completed_at", "error", "error_code", "error_traceback")
            queued = changed(state, status="queued", attempts=0, **dict.fromkeys(ends))
            active = self._active[optimization_id] = Active(queued, self._publish)
        try:
            self._commits.commit(lambda transaction: records.put_state(transaction, queued))
        except AtlasError:
            self._forget(optimization_id)
            raise
        self._publish(announcing.optimization_progress(queued.status))
        self._start(active)
        return queued.status

    def cancel(self, optimization_id: str) -> OptimizationStatus:
        """End an optimisation that is queued or running, and wait until it has; its points are kept.

        NotFound OPTIMIZATION_NOT_FOUND; Conflict OPTIMIZATION_FINISHED where there is nothing to cancel, or where that
        is being done already.
        """
        with self._changed:
            active = self._active.get(optimization_id)
            if active is not None and not active.is_kept:  # where it is being submitted, its future is a moment away
                self._changed.wait_for(lambda: active.future or self._active.get(optimization_id) is not active)
            repeated = active is not None and active.cancelled.is_set()
            if active is not None:
                active.cancelled.set()
        if active is None or repeated:
            state = "being cancelled already" if repeated else self.status(optimization_id).status
            why = f"optimisation {optimization_id} is {state}: there is nothing to cancel"
            raise Conflict(Code.OPTIMIZATION_FINISHED, why)
        if active.is_kept:
            self._failed(active, JobFailed(Code.CANCELLED, "it was cancelled"))
        elif active.future is not None:
            active.future.cancel()
        self.wait(optimization_id, _CANCEL_S)
        return self.status(optimization_id)

    def delete(self, optimization_id: str) -> None:
        """Remove an optimisation that has ended, but not its tries; Conflict OPTIMIZATION_ACTIVE where it has not."""
        if optimization_id in self._active:
            raise self._is_active(optimization_id)
        self.status(optimization_id)
        self._commits.commit(lambda transaction: records.remove(transaction, optimization_id))

    def wait(self, optimization_id: str, timeout_s: float | None = None) -> bool:
        """Wait until an optimisation has ended; False where the time ran out first."""
        with self._changed:
            return self._changed.wait_for(lambda: optimization_id not in self._active, timeout_s)

    def close(self) -> None:
        """Stop the executor; what has not ended goes on when a process next takes up the queue."""
        self._executor.close()
        self._commits.close()

    # Questions.

    def status(self, optimization_id: str) -> OptimizationStatus:
        """Tell how an optimisation is doing; NotFound OPTIMIZATION_NOT_FOUND."""
        active = self._active.get(optimization_id)
        if active is not None:
            return active.status()
        with self._env.read() as transaction:
            return records.stored_state(transaction, optimization_id).status

    def all(self) -> list[OptimizationStatus]:
        """Return all optimisations, the newest first."""
        with self._env.read() as transaction:
            stored = [state.status for state in records.stored_states(transaction)]
        return [active.status() if (active := self._active.get(each.id)) else each for each in stored]

    def counts(self) -> Counter[str]:
        """Count the optimisations that have not ended, by status."""
        return Counter(each.state.status.status for each in dict(self._active).values())

    def result(self, optimization_id: str) -> OptimizationResult:
        """Return a result; NotFound OPTIMIZATION_NOT_FOUND, Conflict OPTIMIZATION_NOT_FINISHED where there is none."""
        active = self._active.get(optimization_id)
        if active is not None:
            raise records.no_result(active.status())
        with self._env.read() as transaction:
            return records.stored_result(transaction, optimization_id)

    # Into the queue.

    def _reserve(self, request: OptimizationRequest, plan: Plan, memory_bytes: int) -> Active:
        """Take an id and a place in the order; Conflict OPTIMIZATION_EXISTS."""
        wanted = request.id
        if wanted is not None and not RUN_ID_PATTERN.fullmatch(wanted):
            why = f"id `{wanted[:60]}` may have letters, digits and ._- only, 1 to 50 of them"
            raise InvalidRequest(Code.INVALID_REQUEST, why, {"field": "id"})
        with self._changed, self._env.read() as transaction:
            chosen = wanted or uuid.uuid4().hex[:8]
            if chosen in self._active or records.is_stored(transaction, chosen):
                why = f"there is an optimisation {chosen}: leave `id` out, choose another, or delete that one"
                raise Conflict(Code.OPTIMIZATION_EXISTS, why, {"id": chosen})
            self._sequence += 1
            status = OptimizationStatus(
                id=chosen,
                name=plan.spec.name,
                status="queued",
                priority=request.priority,
                progress=0.0,
                target=plan.target,
                method=plan.method,
                points=plan.points,
                symbols=[market.instrument.key for market in plan.spec.markets],
                timeframe=str(plan.spec.timeframe),
                created_at=self._now_ms(),
                memory_bound_mb=round(memory_bytes / _MIB, 1),
            )
            state = StoredOptimization(self._sequence, memory_bytes, status)
            active = self._active[chosen] = Active(state, self._publish)
        return active

    def _start(self, active: Active) -> None:
        """Hand a stored optimisation to the executor."""
        status = active.state.status

        def job() -> OptimizationJob:
            with self._env.read() as transaction:
                plan = records.stored_plan(transaction, status.id)
            return OptimizationJob(status.id, plan, dict(self._profiles), budget_for(plan.spec, self._budget))

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
        future.add_done_callback(partial(self._ended, active))

    def _recover(self, *, resumes: bool) -> int:
        """Settle what an earlier process left, and queue it where it is to go on; returns the last place taken."""
        with self._env.read() as transaction:
            states = records.stored_states(transaction)
        unended = [state for state in reversed(states) if state.status.completed_at is None]
        for state in unended:
            left = settled(state, self._now_ms())
            if left.status.status == "failed":
                announced = self._announced(left)
                self._env.write(together(partial(records.put_state, state=left), announced.put))
                announced.tell()
            elif left is not state:
                self._env.write(partial(records.put_state, state=left))
            if left.status.status == "queued":
                active = self._active[left.status.id] = Active(left, self._publish, is_kept=not resumes)
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
        self._change(active, changed(active.state, status="running", attempts=attempts, started_at=self._now_ms()))
        self._publish(announcing.optimization_progress(active.state.status))

    def _told(self, active: Active, progress: OptimizationProgress) -> None:
        active.progress = progress
        if progress.rows is not None:
            self._keep(active, progress, progress.rows)
        active.publish(announcing.optimization_progress(active.status()))

    def _keep(self, active: Active, progress: OptimizationProgress, rows: Rows) -> None:
        optimization_id = active.state.status.id
        state = active.state = changed(active.state, **_best(active.state.status, rows, self._ranges(optimization_id)))

        def store(transaction: Transaction) -> None:
            records.put_rows(transaction, optimization_id, rows, progress.tried)
            records.put_state(transaction, state)

        def stored(error: AtlasError | None) -> None:
            if error is not None:  # a result over points that are not there could neither be listed nor resumed
                active.lost = error
                active.cancelled.set()

        self._commits.post(store, stored)

    def _ranges(self, optimization_id: str) -> list[str]:
        with self._env.read() as transaction:
            return [each.name for each in records.stored_plan(transaction, optimization_id).ranges]

    def _ended(self, active: Active, future: Future[Optimized]) -> None:
        try:
            self._completed(active, future.result())
        except CancelledError:
            self._failed(active, JobFailed(Code.CANCELLED, "it was cancelled"))
        except AtlasError as error:
            if error.code == Code.INTERRUPTED:
                self._interrupted(active)
            else:
                self._failed(active, error)
        except Exception as error:  # noqa: BLE001
            # The last frame of a worker thread: a defect fails the optimisation instead of vanishing.
            _log.exception("optimisation %s failed", active.state.status.id)
            self._failed(active, JobFailed(Code.INTERNAL, repr(error)))

    def _completed(self, active: Active, outcome: Optimized) -> None:
        ended = changed(
            active.state, status="completed", progress=100.0, completed_at=self._now_ms(), verdict=outcome.verdict
        )

        announced = self._announced(ended)

        def finish(transaction: Transaction) -> None:
            if active.lost is not None:
                raise active.lost
            records.put_finished(transaction, ended, outcome)

        def stored(error: AtlasError | None) -> None:
            if error is None:
                self._settle(active, ended, announced, None)
            else:  # a state is small: there may be room for it where there was none for the result
                self._failed(active, error)

        self._commits.post(together(finish, announced.put), stored)

    def _failed(self, active: Active, error: AtlasError) -> None:
        ended = failed(active.state, active.lost or error, self._now_ms())
        announced = self._announced(ended)
        self._commits.post(
            together(partial(records.put_state, state=ended), announced.put),
            partial(self._settle, active, ended, announced),
        )

    def _announced(self, ended: StoredOptimization) -> Announcement:
        return self._journal.announce(announcing.optimization_end(ended.status))

    def _interrupted(self, active: Active) -> None:
        """Leave an optimisation queued that the end of this process, in order, kept from ending."""
        if active.state.status.status == "running":
            attempts = active.state.status.attempts - 1
            self._change(active, changed(active.state, status="queued", attempts=attempts, started_at=None))

    def _change(self, active: Active, state: StoredOptimization) -> None:
        active.state = state
        self._commits.post(lambda transaction: records.put_state(transaction, state))

    def _settle(
        self, active: Active, ended: StoredOptimization, announced: Announcement, error: AtlasError | None
    ) -> None:
        """Let go of an optimisation whose last state is on disk, or cannot be put there, then tell."""
        status = ended.status
        if error is not None:
            _log.error("optimisation %s ended, but its state could not be stored: %s", status.id, error.message)
        active.state = ended
        self._forget(status.id)
        _log.info("optimisation %s %s", status.id, status.status)
        if error is None:
            announced.tell()
        else:  # no fact, for the next process works it off again
            self._publish(announcing.optimization_progress(status))

    def _forget(self, optimization_id: str) -> None:
        with self._changed:
            self._active.pop(optimization_id, None)
            self._changed.notify_all()

    def _is_active(self, optimization_id: str) -> Conflict:
        why = f"optimisation {optimization_id} has not ended: wait for it or cancel it"
        return Conflict(Code.OPTIMIZATION_ACTIVE, why)

    def _now_ms(self) -> int:
        return self._now_ns() // _NS_PER_MS


def _best(status: OptimizationStatus, rows: Rows, names: list[str]) -> dict[str, object]:
    """Return what a status shows after some more points."""
    import numpy as np

    values, figures = rows.table(len(names))
    done: dict[str, object] = {"points_done": rows.first + len(values)}
    known = status.best_score
    if rows.first == 0:  # whatever was there before has gone
        known = None
        done |= {"best_score": None, "best_parameters": None}
    scores = figures[:, 0]
    if not np.isnan(scores).all():
        best = int(np.nanargmax(scores))
        if known is None or scores[best] > known:
            done["best_score"] = float(scores[best])
            done["best_parameters"] = dict(zip(names, values[best].tolist(), strict=True))
    return done


def _memory_bytes(plan: Plan, bars: BarStore) -> int:
    """Say how much an optimisation holds at the most: as a walk-forward does, and the daily returns it judges by."""
    walking = msgspec.structs.replace(swept(plan.spec), validation=Validation(walk_forward=True))
    cells = min(plan.points * days_of_range(plan.spec, bars), MOST_CELLS)
    return memory_bound(walking, bars, warmups=SERIES_KEPT) + cells * CELL_BYTES
