"""The journal of facts: numbers, order, what is kept, and what can be told again."""

import re
import subprocess
import sys
import threading
from itertools import islice

import msgspec
import pytest

from daemon.core.errors import Code, Conflict, StoreFull
from daemon.core.events import BacktestFailed
from daemon.store.env import Environment, StoreConfig
from daemon.store.group_commit import GroupCommit, together
from daemon.store.journal import MOST_FACTS, UNHEARD, Journal

QUICK = StoreConfig(sync=False)
TIMES_MS = iter(range(10**9))


@pytest.fixture
def env(tmp_path):
    with Environment(tmp_path / "data", QUICK) as env:
        yield env


@pytest.fixture
def journal(env):
    """Make a journal of this store; it is closed at the end."""
    made = []

    def make(written=None, **options):
        made.append(Journal(env, lambda: next(TIMES_MS), written, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def failure(name):
    return BacktestFailed(id=str(name), symbols=["local:BTC/USDT"], error="no bars", code="NO_BARS")


def ids(facts):
    return [msgspec.json.decode(each.fields)["id"] for each in facts]


def numbers(facts):
    return [each.seq for each in facts]


def put(env, kept, *names):
    """Store facts at once, a transaction each, and tell them."""
    for name in names:
        announced = kept.announce(failure(name))
        env.write(announced.put)
        announced.tell()


def gap(kept, seq):
    with pytest.raises(Conflict, match="cannot be told") as refused:
        list(kept.after(seq))
    assert refused.value.code == Code.RESUME_GAP
    return refused.value.details


# What is told.


def test_a_fact_is_on_disk_before_it_is_told_and_says_what_its_event_says(env, journal):
    found = []

    def written(fact):
        with env.read() as transaction:  # a snapshot of what is committed
            found.append((fact, len(list(transaction.scan("journal", b"")))))

    kept = journal(written)
    assert (kept.last, list(kept.after(0))) == (0, [])
    for name in "abc":
        kept.append(failure(name))
    kept.close()
    assert [stored >= fact.seq for fact, stored in found] == [True] * 3
    facts = [fact for fact, _ in found]
    assert (numbers(facts), ids(facts), kept.last) == ([1, 2, 3], ["a", "b", "c"], 3)
    assert [fact.name for fact in facts] == ["backtest:error"] * 3
    assert facts[0].time_ms < facts[2].time_ms
    assert msgspec.json.decode(facts[0].fields) == {
        "id": "a", "symbols": ["local:BTC/USDT"], "error": "no bars", "code": "NO_BARS",
    }  # fmt: skip
    assert list(kept.after(0)) == facts


def test_a_fact_and_the_state_it_tells_of_are_stored_together_or_not_at_all(env, journal):
    told = []
    kept = journal(told.append)
    announced = kept.announce(failure("a"))

    def fails(transaction):
        announced.put(transaction)
        raise StoreFull(Code.STORE_FULL, "planted")

    with pytest.raises(StoreFull):
        env.write(fails)
    announced = kept.announce(failure("b"))
    env.write(together(lambda transaction: transaction.put("meta", b"state", b"ended"), announced.put))
    assert told == []  # until all that belongs to it is done
    announced.tell()
    announced.tell()
    assert (numbers(told), ids(told)) == ([1], ["b"])
    assert list(kept.after(0)) == told


def test_a_fact_that_cannot_be_stored_is_told_to_nobody_and_takes_no_number(env, journal, monkeypatch, caplog):
    told = []
    kept = journal(told.append)
    put(env, kept, "before")

    def full(_):
        raise StoreFull(Code.STORE_FULL, "no room on the disk")

    with monkeypatch.context() as patch:
        patch.setattr(env, "write", full)
        failed = threading.Event()
        patch.setattr("daemon.store.journal._log.error", lambda *_: failed.set())
        kept.append(failure("lost"))
        assert failed.wait(5)
    kept.append(failure("after"))
    kept.close()
    assert (numbers(told), ids(told)) == ([1, 2], ["before", "after"])
    kept.append(failure("too late"))
    assert "backtest:error of too late could not be stored" in caplog.text
    assert kept.last == 2


def test_numbers_follow_each_other_and_are_told_in_order_whoever_commits(env, journal):
    told, inside = [], threading.Lock()

    def written(fact):
        assert inside.acquire(blocking=False), "one at a time"
        told.append(fact)
        inside.release()

    kept = journal(written)

    def appends(name):
        for number in range(40):
            kept.append(failure(f"{name}-{number}"))

    def writes(name):
        put(env, kept, *(f"{name}-{number}" for number in range(40)))

    def groups(name):
        commits = GroupCommit(env)
        for number in range(40):
            announced = kept.announce(failure(f"{name}-{number}"))
            commits.post(announced.put, lambda error, announced=announced: announced.tell() if error is None else None)
        commits.close()

    threads = [threading.Thread(target=run, args=(run.__name__,)) for run in (appends, writes, groups) for _ in "12"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept.close()
    assert numbers(told) == list(range(1, 241))
    assert list(kept.after(0)) == told
    for name in ("appends", "writes", "groups"):
        assert sorted(each for each in ids(told) if each.startswith(name)) == sorted(
            f"{name}-{number}" for number in range(40) for _ in "12"
        )


def test_what_overtook_waits_until_the_facts_before_it_are_told(env, journal):
    told = []
    kept = journal(told.append)
    slow, fast = kept.announce(failure("slow")), kept.announce(failure("fast"))
    env.write(slow.put)
    env.write(fast.put)
    fast.tell()
    assert (told, kept.last, list(kept.after(0))) == ([], 0, [])
    slow.tell()
    assert (ids(told), kept.last) == (["slow", "fast"], 2)


def test_listeners_come_go_and_fail_without_harm_to_others(env, journal, caplog):
    first, second = [], []
    kept = journal(first.append)

    def breaks(_):
        raise ZeroDivisionError

    leave_broken, leave = kept.listen(breaks), kept.listen(second.append)
    put(env, kept, "a")
    leave()
    leave_broken()
    put(env, kept, "b")
    assert (ids(first), ids(second)) == (["a", "b"], ["a"])
    assert caplog.text.count("a listener failed on backtest:error") == 1


def test_a_journal_for_nobody_keeps_nothing(env):
    announced = UNHEARD.announce(failure("a"))
    env.write(announced.put)
    announced.tell()
    with env.read() as transaction:
        assert list(transaction.scan("journal", b"")) == []


# What is kept.


def test_numbers_and_epoch_go_on_after_a_restart_and_another_store_has_another_epoch(tmp_path):
    epochs, told = [], []
    for name in ("a", "b"):
        with Environment(tmp_path / "data", QUICK) as env:
            kept = Journal(env, lambda: 5, told.append)
            kept.append(failure(name))
            kept.close()
            epochs.append(kept.epoch)
            assert list(kept.after(0)) == told
    assert numbers(told) == [1, 2]
    with Environment(tmp_path / "other", QUICK) as env:
        epochs.append(Journal(env, lambda: 5).epoch)
    assert epochs[0] == epochs[1] != epochs[2]
    assert re.fullmatch(r"[\w-]{22}", epochs[0])


def test_resuming_tells_every_fact_behind_a_number_and_no_other(journal):
    told = []
    kept = journal(told.append)
    for number in range(1_203):  # more than one page
        kept.append(failure(number))
    kept.close()
    assert list(kept.after(0)) == told
    assert list(kept.after(700)) == told[700:]
    assert list(kept.after(1_202)) == told[-1:]
    assert list(kept.after(1_203)) == []


def test_the_last_ones_are_kept_and_who_is_further_behind_is_told_of_a_gap(env, journal):
    kept = journal(most=10)
    put(env, kept, *range(25))
    assert numbers(kept.after(15)) == list(range(16, 26))
    assert gap(kept, 14) == {"epoch": kept.epoch, "first": 16, "last": 25}
    assert gap(kept, 0)["first"] == 16
    # A client that knows more than the journal: the store was put back to an earlier state.
    assert gap(kept, 26)["last"] == 25
    assert gap(kept, 2**70)["last"] == 25


def test_the_oldest_go_many_at_a_time_and_no_fewer_than_the_limit_stay(env, journal):
    kept = journal(most=300)  # three too many are borne
    with env.read() as transaction:
        assert list(transaction.scan("journal", b"")) == []
    counts = []
    for number in range(330):
        put(env, kept, number)
        with env.read() as transaction:
            counts.append(len(list(transaction.scan("journal", b""))))
    assert min(counts[300:]) == 300
    assert max(counts) == 303
    assert numbers(kept.after(30)) == list(range(31, 331))
    later = journal(most=10)
    put(env, later, "one more")
    assert numbers(later.after(321)) == list(range(322, 332))
    assert gap(later, 320)["first"] == 322
    assert MOST_FACTS == 100_000


def test_a_slow_reader_holds_no_snapshot_and_is_told_where_it_was_overtaken(env, journal):
    kept = journal(most=1_000)
    put(env, kept, *range(1_000))
    walk = kept.after(0)
    assert len(list(islice(walk, 500))) == 500
    env.write(lambda transaction: transaction.put("meta", b"x", b"y"))
    assert env._readers == 0  # noqa: SLF001 - what pins pages shows nowhere else
    put(env, kept, *range(100))
    assert next(walk).seq == 501  # what it has to tell is still there
    put(env, kept, *range(1_000))
    with pytest.raises(Conflict) as refused:
        list(walk)
    assert refused.value.code == Code.RESUME_GAP


def test_a_gap_is_said_before_the_first_fact_is_asked_for(env, journal):
    kept = journal(most=2)
    put(env, kept, *"abcde")
    with pytest.raises(Conflict):
        kept.after(1)


# Death.

CHILD = """
import sys
from pathlib import Path
from daemon.core.events import BacktestFailed
from daemon.store.env import Environment, StoreConfig
from daemon.store.group_commit import together
from daemon.store.journal import Journal
env = Environment(Path(sys.argv[1]), StoreConfig(sync=False))
kept = Journal(env, lambda: 5, lambda fact: print(fact.seq, flush=True))
number = 0
while True:
    number += 1
    state = str(number).encode()
    announced = kept.announce(BacktestFailed(id=str(number), error="", code=""))
    env.write(together(lambda transaction: transaction.put("meta", b"state", state), announced.put))
    announced.tell()
"""


@pytest.mark.parametrize("told", [1, 50, 400])
def test_a_process_killed_at_any_moment_leaves_a_fact_for_every_state_and_what_was_told(tmp_path, told):
    with subprocess.Popen([sys.executable, "-c", CHILD, tmp_path], stdout=subprocess.PIPE, text=True) as child:
        lines = [int(next(child.stdout)) for _ in range(told)]
        child.kill()
        rest = child.stdout.read().splitlines(keepends=True)
        lines += [int(line) for line in rest if line.endswith("\n")]
    assert lines == list(range(1, len(lines) + 1))
    with Environment(tmp_path, QUICK) as env:
        kept = Journal(env, lambda: 6)
        with env.read() as transaction:
            state = int(bytes(transaction.get("meta", b"state")))
        assert kept.last == state >= lines[-1]
        assert ids(kept.after(0)) == [str(number) for number in range(1, state + 1)]
