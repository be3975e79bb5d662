"""Runs: submitted, worked off job by job, stored job by job, resumed, cancelled, deleted.

A job's rows, its index and the run's new state are one transaction, so a run that is killed at any moment continues
from its last whole job. The same run id again means "go on": what is stored is skipped, new combinations are added,
and anything that would mix unlike results is a conflict.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from daemon.core.errors import AtlasError, Code, Conflict, JobFailed
from daemon.core.market import Timeframe, TsNs
from daemon.core.strategy import RiskProfile
from daemon.research import announcing
from daemon.research.plans import Plan, ProbeJob, ProbeRequest, Target, date_range, plan
from daemon.research.records import ACTIVE, KIND, Failure, Run, RunView, Status, notes_on, stored_run, stored_runs
from daemon.research.selection import fingerprint
from daemon.research.strategies import digest
from daemon.research.worker import Paced
from daemon.store import documents, results
from daemon.store.group_commit import together
from daemon.store.journal import UNHEARD

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future

    from daemon.core.events import Event
    from daemon.research.executors import Executor
    from daemon.research.strategies import RuleBook
    from daemon.store.bars import BarStore
    from daemon.store.env import Environment, Transaction
    from daemon.store.journal import Announcement, Announcer
    from daemon.store.results import JobIndex

_log = logging.getLogger(__name__)

SPOOL_FOLDER: Final = "spool"
UPLOAD_SUFFIX: Final = ".upload"


class _Active:
    """A run in this process; its lock guards every field. publish: told how it is doing; its jobs tell side by side."""

    def __init__(self, run: Run, plan_: Plan, publish: Callable[[Event], None]) -> None:
        self.publish = Paced(publish)
        self.run = run
        self.plan = plan_
        self.cancelled = threading.Event()
        self.finished = threading.Event()
        self.lock = threading.Lock()
        self.started_s = time.monotonic()
        self.ended_s: float | None = None
        self.already_done = run.completed_combinations
        self.in_jobs: dict[int, int] = {}
        self.jobs_left = 0
        self.elapsed_before = run.elapsed_seconds

    def elapsed_s(self) -> float:
        """Seconds of this session, which stand still once the last job has ended."""
        return (self.ended_s or time.monotonic()) - self.started_s

    def view(self) -> RunView:
        with self.lock:
            completed = self.run.completed_combinations + sum(self.in_jobs.values())
            elapsed = self.elapsed_s()
            fresh = completed - self.already_done
            left = elapsed / fresh * (self.run.total_combinations - completed) if fresh else None
            return RunView(self.run, completed, elapsed + self.elapsed_before, left)


class Runs:
    """All runs of one store. Methods may be called from any thread.

    journal: gets the fact of every end, with the state that ends. publish: told progress, ten times a second a run at
    the most, from the thread that has it.
    """

    def __init__(
        self,
        env: Environment,
        bars: BarStore,
        book: RuleBook,
        profiles: Mapping[str, RiskProfile],
        executor: Executor,
        *,
        now_ns: Callable[[], TsNs] = time.time_ns,
        spares_uploads_s: float = 0.0,
        journal: Announcer = UNHEARD,
        publish: Callable[[Event], None] = announcing.nobody,
    ) -> None:
        self._spares_uploads_s = spares_uploads_s
        self._env = env
        self._bars = bars
        self._book = book
        self._profiles = profiles
        self._executor = executor
        self._now_ns = now_ns
        self._journal = journal
        self._publish = publish
        self._active: dict[str, _Active] = {}
        self._lock = threading.Lock()
        self._spool = env.path.parent / SPOOL_FOLDER
        self._recover()

    # Commands.

    def submit(self, request: ProbeRequest) -> tuple[Run, int]:
        """Check, store and start a run; return it with the estimated seconds.

        InvalidRequest or NotFound as `plans.plan` says; Conflict RUN_ACTIVE while the id is running, RUN_CONFLICT
        where the id is stored with other rules, dates, scales or bars.
        """
        plan_ = plan(request, self._bars, self._book, self._profiles)
        with self._lock:
            if plan_.run_id in self._active:
                raise Conflict(Code.RUN_ACTIVE, f"run {plan_.run_id} is running: wait for it or cancel it")
            with self._env.read() as transaction:
                stored = documents.get(transaction, KIND, plan_.run_id, Run)
                indexes = [job.index for job in results.jobs(transaction, plan_.run_id)]
            if stored is not None:
                self._check_same(stored, plan_, indexes)
            run = self._queued(plan_, stored, indexes)
            self._env.write(lambda transaction: documents.put(transaction, KIND, run.run_id, run))
            active = _Active(run, plan_, self._publish)
            self._active[run.run_id] = active
        self._publish(announcing.probe_progress(active.view()))
        jobs = self._jobs(plan_, indexes)
        active.jobs_left = len(jobs)
        if not jobs:
            self._finish(active)
        for number, job in enumerate(jobs):
            self._start(active, number, job)
        return run, plan_.estimated_seconds(self._executor.workers)

    def cancel(self, run_id: str) -> Run:
        """Stop an active run and wait for it; Conflict RUN_FINISHED where it is none, NotFound where unknown."""
        with self._lock:
            active = self._active.get(run_id)
        if active is None:
            run = self.get(run_id).run
            raise Conflict(Code.RUN_FINISHED, f"run {run_id} is {run.status}: there is nothing to cancel")
        active.cancelled.set()
        active.finished.wait()
        return self.get(run_id).run

    def delete(self, run_id: str) -> Run:
        """Remove a finished run and its results; Conflict RUN_ACTIVE while it runs."""
        with self._lock:
            if run_id in self._active:
                raise Conflict(Code.RUN_ACTIVE, f"run {run_id} is running: cancel it first")
            run = self.get(run_id).run

            def remove(transaction: Transaction) -> None:
                results.delete_run(transaction, run_id)
                documents.delete(transaction, KIND, run_id)

            self._env.write(remove)
        return run

    def wait(self, run_id: str, timeout_s: float | None = None) -> bool:
        """Wait until a run is no longer active; False where the time ran out first."""
        with self._lock:
            active = self._active.get(run_id)
        return active is None or active.finished.wait(timeout_s)

    def close(self) -> None:
        """Stop the executor; runs that were active are stored as failed, INTERRUPTED, and can be resumed."""
        self._executor.close()
        for active in list(self._active.values()):
            active.finished.wait()

    # Questions.

    def get(self, run_id: str) -> RunView:
        """Return a run; NotFound RUN_NOT_FOUND."""
        active = self._active.get(run_id)
        if active is not None:
            return active.view()
        with self._env.read() as transaction:
            return stored_run(transaction, run_id)

    def all(self) -> list[RunView]:
        """Return all runs, the newest first."""
        active = dict(self._active)  # first: what is not in it has its last state on disk
        with self._env.read() as transaction:
            views = stored_runs(transaction)
        return [active[view.run.run_id].view() if view.run.run_id in active else view for view in views]

    def counts(self) -> Counter[str]:
        """Count the runs that have not ended, by status."""
        return Counter(each.run.status for each in dict(self._active).values())

    # Internals.

    def _queued(self, plan_: Plan, stored: Run | None, indexes: list[JobIndex]) -> Run:
        """Describe the run as it begins: what an earlier session stored, and what is to come."""
        done = {
            (index.instrument, index.timeframe, *pair)
            for index in indexes
            for pair in zip(index.totals.strategy_id, index.totals.risk_profile, strict=True)
        }
        wanted = {
            (target.instrument.key, str(target.timeframe), strategy_id, profile)
            for target in plan_.targets
            for strategy_id in plan_.strategy_ids
            for profile in plan_.risk_profiles
        }
        rules = {each: digest(self._book.get(each)) for each in plan_.strategy_ids}
        names = {each: self._book.get(each).name for each in plan_.strategy_ids}
        return Run(
            run_id=plan_.run_id,
            status="queued",
            created_ns=stored.created_ns if stored else self._now_ns(),
            start_date=plan_.start_date,
            end_date=plan_.end_date,
            persist_trades=plan_.persist_trades,
            symbols=sorted({target.instrument.key for target in plan_.targets} | set(stored.symbols if stored else ())),
            timeframes=sorted(
                {str(target.timeframe) for target in plan_.targets} | set(stored.timeframes if stored else ()),
                key=lambda name: Timeframe(name).ns,
            ),
            risk_profiles={**(stored.risk_profiles if stored else {}), **plan_.risk_profiles},
            rules={**(stored.rules if stored else {}), **rules},
            strategy_names={**(stored.strategy_names if stored else {}), **names},
            total_combinations=len(done | wanted),
            completed_combinations=len(done),
            total_trades=sum(sum(index.totals.trades) for index in indexes),
            total_result_records=sum(sum(index.totals.groups) for index in indexes),
            elapsed_seconds=stored.elapsed_seconds if stored else 0.0,
            notes=stored.notes if stored else [],
        )

    def _check_same(self, stored: Run, plan_: Plan, indexes: list[JobIndex]) -> None:
        """Refuse to add unlike results to a stored run; the message names the field."""
        differing: str | None = None
        if stored.start_date != plan_.start_date:
            differing = f"start_date (stored {stored.start_date}, asked {plan_.start_date})"
        elif stored.end_date != plan_.end_date:
            differing = f"end_date (stored {stored.end_date}, asked {plan_.end_date})"
        elif stored.persist_trades != plan_.persist_trades:
            differing = f"persist_trades (stored {stored.persist_trades}, asked {plan_.persist_trades})"
        for name, profile in plan_.risk_profiles.items():
            if stored.risk_profiles.get(name, profile) != profile:
                differing = differing or f"risk_profiles ({name} has other scales now)"
        for strategy_id in plan_.strategy_ids:
            if stored.rules.get(strategy_id, now := digest(self._book.get(strategy_id))) != now:
                differing = differing or f"strategy_ids (strategy {strategy_id} has other rules now)"
        differing = differing or self._changed_bars(plan_, indexes)
        if differing is not None:
            field = differing.partition(" ")[0]
            raise Conflict(
                Code.RUN_CONFLICT,
                f"run {stored.run_id} is stored with another {differing}: use another run id, or delete the run",
                {"field": field, "run_id": stored.run_id},
            )

    def _changed_bars(self, plan_: Plan, indexes: list[JobIndex]) -> str | None:
        by_series = {(index.instrument, index.timeframe): index for index in indexes}
        for target in plan_.targets:
            index = by_series.get((target.instrument.key, target.timeframe))
            if index is None:
                continue
            if fingerprint(self._bars, self._job(plan_, target, [])) != index.bars_digest:
                return f"bars ({target.instrument.key} {target.timeframe} changed since)"
        return None

    def _jobs(self, plan_: Plan, indexes: list[JobIndex]) -> list[ProbeJob]:
        """List what is left to do."""
        done: dict[tuple[str, str], set[tuple[int, str]]] = {}
        for index in indexes:
            stored = zip(index.totals.strategy_id, index.totals.risk_profile, strict=True)
            done.setdefault((index.instrument, index.timeframe), set()).update(stored)
        jobs = []
        for target in plan_.targets:
            finished = done.get((target.instrument.key, target.timeframe), set())
            pairs = [(each, name) for each in plan_.strategy_ids for name in plan_.risk_profiles]
            left = [pair for pair in pairs if pair not in finished]
            if left:
                jobs.append(self._job(plan_, target, left))
        return jobs

    def _job(self, plan_: Plan, target: Target, combinations: list[tuple[int, str]]) -> ProbeJob:
        start_ns, _ = date_range(plan_.start_date, None)
        end_ns, _ = date_range(plan_.end_date, None)
        return ProbeJob(
            run_id=plan_.run_id,
            instrument=target.instrument,
            timeframe=target.timeframe,
            source=target.source,
            start_ns=plan_.start_ns,
            stop_ns=plan_.stop_ns,
            period=(start_ns, end_ns),
            combinations=combinations,
            risk_profiles=plan_.risk_profiles,
            persist_trades=plan_.persist_trades,
            # Never used again: a worker that outlives a killed daemon may still write to its own, or remove it.
            spool=str(self._spool / f"{uuid.uuid4().hex}.spool"),
        )

    def _start(self, active: _Active, number: int, job: ProbeJob) -> None:
        def progress(done: int) -> None:
            with active.lock:
                active.in_jobs[number] = done
                if active.run.status == "queued":
                    active.run = msgspec.structs.replace(active.run, status="running")
            active.publish(announcing.probe_progress(active.view()))

        def finished(future: Future[JobIndex]) -> None:
            self._job_done(active, number, job, future)

        self._executor.submit(job, progress, active.cancelled).add_done_callback(finished)

    def _job_done(self, active: _Active, number: int, job: ProbeJob, future: Future[JobIndex]) -> None:
        """Store a job's outcome. Runs on whatever thread finished the job."""
        spool = Path(job.spool)
        try:
            self._store(active, number, future.result(), spool)
        except AtlasError as error:
            self._job_failed(active, number, error)
        except Exception as error:  # noqa: BLE001
            # The last frame of a worker thread: a defect fails the run instead of vanishing.
            _log.exception("run %s: %s %s failed", job.run_id, job.instrument.key, job.timeframe)
            self._job_failed(
                active, number, JobFailed(Code.INTERNAL, f"{job.instrument.key} {job.timeframe}: {error!r}")
            )
        finally:
            with suppress(OSError):  # what stays behind is removed at the next start
                spool.unlink()
            with active.lock:
                active.jobs_left -= 1
                last = active.jobs_left == 0
            if last:
                self._finish(active)

    def _job_failed(self, active: _Active, number: int, error: AtlasError) -> None:
        """Remember the first failure; the run's other jobs go on, and it ends when they have."""
        with active.lock:
            active.in_jobs.pop(number, None)
            if active.run.error is None:
                active.run = msgspec.structs.replace(active.run, error=Failure(error.code, error.message))

    def _store(self, active: _Active, number: int, index: JobIndex, spool: Path) -> None:
        with active.lock:
            run = active.run
            updated = msgspec.structs.replace(
                run,
                status="running",
                completed_combinations=run.completed_combinations + len(index.totals.trades),
                total_trades=run.total_trades + sum(index.totals.trades),
                total_result_records=run.total_result_records + sum(index.totals.groups),
                notes=list(dict.fromkeys([*run.notes, *notes_on(index)])),
                elapsed_seconds=active.elapsed_before + active.elapsed_s(),
            )

            def commit(transaction: Transaction) -> None:
                results.put_job(transaction, run.run_id, index, spool)
                documents.put(transaction, KIND, run.run_id, updated)

            self._env.write(commit)
            active.in_jobs.pop(number, None)
            active.run = updated

    def _finish(self, active: _Active) -> None:
        """Store how the run ended. It counts as active until that is done: who sees it end may use its id again."""
        with active.lock:
            run = active.run
            active.ended_s = time.monotonic()
            status: Status = "completed"
            if run.error is not None:
                status = "cancelled" if run.error.code == Code.CANCELLED else "failed"
            ended = msgspec.structs.replace(
                run,
                status=status,
                finished_ns=self._now_ns(),
                elapsed_seconds=active.elapsed_before + active.elapsed_s(),
            )
        announced = self._journal.announce(announcing.probe_end(ended))
        store = partial(documents.put, kind=KIND, identity=run.run_id, document=ended)
        is_stored = True
        try:
            self._env.write(together(store, announced.put))
        except AtlasError as error:
            # Nobody waits on this thread; the run stays "running" on disk and is recovered at the next start.
            _log.error("run %s ended, but its state could not be stored: %s", run.run_id, error.message)
            is_stored = False
        with self._lock:
            self._active.pop(run.run_id, None)
        active.finished.set()
        _log.info("run %s %s: %d combinations", run.run_id, status, ended.completed_combinations)
        if is_stored:
            announced.tell()
        else:  # no fact, for the next process finds it running, and failed
            unstored = msgspec.structs.replace(ended, status="failed")
            self._publish(announcing.probe_progress(RunView(unstored, ended.completed_combinations, 0.0, None)))

    def _recover(self) -> None:
        """Mark runs that a killed process left active as failed; their stored jobs stay."""
        announced: list[Announcement] = []

        def fail(transaction: Transaction) -> None:
            announced.clear()  # the transaction may be run again
            for run in [view.run for view in stored_runs(transaction)]:
                if run.status in ACTIVE:
                    failure = Failure(
                        Code.INTERRUPTED,
                        "the process ended while it ran: run the same run id again to resume",
                    )
                    failed = msgspec.structs.replace(run, status="failed", error=failure)
                    documents.put(transaction, KIND, run.run_id, failed)
                    announced.append(self._journal.announce(announcing.probe_end(failed)))
                    announced[-1].put(transaction)

        self._env.write(fail)
        for each in announced:
            each.tell()
        for leftover in self._spool.glob("*"):
            # A command line may be reading a file into an upload just now, for this process to store.
            is_upload = leftover.suffix == UPLOAD_SUFFIX
            if not is_upload or time.time() - leftover.stat().st_mtime >= self._spares_uploads_s:
                leftover.unlink()
