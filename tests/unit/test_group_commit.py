"""Commits together: in order, each whole, a failure with whom it belongs to, few flushes."""

import threading
import time

import pytest

from daemon.core.errors import AtlasError, Code, StoreFull
from daemon.store.env import Environment, StoreConfig
from daemon.store.group_commit import GroupCommit


@pytest.fixture
def env(tmp_path):
    with Environment(tmp_path, StoreConfig(sync=False)) as env:
        yield env


@pytest.fixture
def commits(env):
    commits = GroupCommit(env)
    yield commits
    commits.close()


@pytest.fixture
def transactions(env, monkeypatch):
    """Count the transactions."""
    counted, write = [], env.write

    def counting(action):
        counted.append(1)
        return write(action)

    monkeypatch.setattr(env, "write", counting)
    return counted


def putting(key, value=b"v"):
    return lambda transaction: transaction.put("meta", key, value)


def fails(_):
    raise StoreFull(Code.STORE_FULL, "planted")


def stored(env, key):
    with env.read() as transaction:
        value = transaction.get("meta", key)
        return None if value is None else bytes(value)


def test_a_commit_is_stored_when_it_returns(env, commits):
    commits.commit(putting(b"a"))
    assert stored(env, b"a") == b"v"


def test_what_waits_while_another_is_written_goes_in_one_transaction(commits, transactions):
    entered, go_on = threading.Event(), threading.Event()

    def slow(_):
        entered.set()
        go_on.wait(5)

    commits.post(slow)
    entered.wait(5)
    done = []
    for number in range(50):
        commits.post(putting(b"%d" % number), done.append)
    go_on.set()
    commits.commit(putting(b"last"))
    assert done == [None] * 50
    assert len(transactions) == 2


def test_changes_are_made_in_the_order_they_came(env, commits):
    for number in range(100):
        commits.post(putting(b"same", b"%d" % number), within_s=0.01 * (number % 3))
    commits.commit(putting(b"other"))
    assert stored(env, b"same") == b"99"


def test_a_change_without_hurry_waits_for_company_and_then_goes_alone(env, commits, transactions):
    commits.post(putting(b"early"), within_s=30)
    assert stored(env, b"early") is None
    commits.commit(putting(b"eager"))
    assert stored(env, b"early") == b"v"
    assert len(transactions) == 1
    commits.post(putting(b"alone"), within_s=0.02)
    deadline = time.monotonic() + 5
    while stored(env, b"alone") is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_change_that_fails_takes_no_other_with_it(env, commits, caplog):
    entered, go_on = threading.Event(), threading.Event()
    commits.post(lambda _: (entered.set(), go_on.wait(5)))
    entered.wait(5)
    told = {}
    commits.post(putting(b"before"), lambda error: told.update(before=error))
    commits.post(fails, lambda error: told.update(fails=error))
    commits.post(lambda _: 1 / 0, lambda error: told.update(defect=error))
    commits.post(putting(b"after"), lambda error: told.update(after=error))
    go_on.set()
    commits.commit(putting(b"last"))
    assert (told["before"], told["after"]) == (None, None)
    assert (told["fails"].code, told["defect"].code) == (Code.STORE_FULL, Code.INTERNAL)
    assert stored(env, b"before") == stored(env, b"after") == b"v"
    with pytest.raises(StoreFull, match="planted"):
        commits.commit(fails)
    assert "ZeroDivisionError" in caplog.text


def test_closing_stores_what_waits_and_refuses_what_comes_later(env, commits):
    commits.post(putting(b"waits"), within_s=60)
    commits.close()
    assert stored(env, b"waits") == b"v"
    with pytest.raises(AtlasError) as refused:
        commits.commit(putting(b"late"))
    assert refused.value.code == Code.INTERRUPTED
