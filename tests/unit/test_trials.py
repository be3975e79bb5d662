"""The ledger of tries, over a real store."""

import statistics

import pytest
from simulated import a_spec, exits, listed

from daemon.core import strategy as rules
from daemon.core.backtest import Grid, OrderList, Rules
from daemon.core.errors import NotFound
from daemon.engine.significance import expected_maximum
from daemon.research.trial_lists import listed_ideas, listed_tries
from daemon.research.trials import Trial, idea_of, ideas, is_tried, place_of, record, stored_idea, tries_of
from daemon.store.env import Environment, StoreConfig

RSI = Rules(entry_long=(rules.CrossesAbove("rsi_14", value=30.0),))


@pytest.fixture
def env(tmp_path):
    with Environment(tmp_path / "data", StoreConfig(sync=False)) as env:
        yield env


def trial(fingerprint, sharpe=0.1, idea="i", at=1):
    return Trial(idea, fingerprint, "a name", sharpe, 30, 1.0, at)


def put(env, *trials):
    return env.write(lambda transaction: record(transaction, trials))


def test_a_rerun_counts_once(env):
    assert put(env, trial("a"), trial("b")) == 2
    assert put(env, trial("a", at=5), trial("c", at=7)) == 1
    with env.read() as transaction:
        known = stored_idea(transaction, "i")
        assert is_tried(transaction, "i", "a")
        assert not is_tried(transaction, "j", "a")
    assert (known.tries, known.first_ms, known.last_ms) == (3, 1, 7)


def test_the_spread_of_tries_is_that_of_their_sharpe_ratios(env):
    sharpes = [0.3, -0.1, 0.25, 0.02, 1e-9]
    put(env, *(trial(str(number), sharpe) for number, sharpe in enumerate(sharpes)), trial("none", None))
    with env.read() as transaction:
        known = stored_idea(transaction, "i")
    assert (known.tries, known.known, known.best_sharpe) == (6, 5, 0.3)
    assert known.mean == pytest.approx(statistics.mean(sharpes))
    assert known.variance == pytest.approx(statistics.variance(sharpes))


def test_one_try_has_no_spread(env):
    put(env, trial("a"))
    with env.read() as transaction:
        assert stored_idea(transaction, "i").variance is None
        assert stored_idea(transaction, "other") is None


def test_ideas_are_listed_with_those_tried_last_first(env):
    put(env, trial("a", idea="old", at=1), trial("b", idea="new", at=9), trial("c", idea="old", at=3))
    with env.read() as transaction:
        assert [(each.idea, each.tries) for each in ideas(transaction)] == [("new", 1), ("old", 2)]
        assert [each.fingerprint for each in tries_of(transaction, "old")] == ["c", "a"]
        assert tries_of(transaction, "ol") == []


def test_a_list_goes_on_behind_any_place_and_none_comes_twice(env):
    put(env, *(trial(f"f{number}", at=10 + number // 3) for number in range(20)))
    with env.read() as transaction:
        whole = tries_of(transaction, "i")
        pages, after = [], None
        while page := tries_of(transaction, "i", after=after, most=7):
            pages.append(page)
            after = place_of(page[-1])
        assert [len(page) for page in pages] == [7, 7, 6]
        assert sum(pages, []) == whole  # noqa: RUF017
        assert ideas(transaction, most=1) == ideas(transaction)
        assert ideas(transaction, after=place_of(ideas(transaction)[0])) == []


def test_a_listed_idea_says_what_chance_gives_once_two_tries_are_known(env):
    put(env, trial("a", 0.1))
    with env.read() as transaction:
        assert [each.chance_daily_sharpe for each in listed_ideas(transaction)] == [None]
    put(env, trial("b", 0.3), trial("c", None))
    with env.read() as transaction:
        listed_idea = listed_ideas(transaction)[0]
        assert [each.daily_sharpe for each in listed_tries(transaction, "i")] == [0.1, 0.3, None]
    deviation = statistics.stdev([0.1, 0.3])
    assert listed_idea.chance_daily_sharpe == pytest.approx(deviation * expected_maximum(3))


def test_tries_of_an_idea_that_nobody_had_are_not_found(env):
    with env.read() as transaction, pytest.raises(NotFound, match="`atlasd trials` lists"):
        listed_tries(transaction, "i")


def test_parameters_and_symbols_are_tries_of_one_idea_other_rules_are_another():
    first = idea_of(a_spec(program=RSI))
    assert idea_of(a_spec(program=RSI, symbols=3, exits=exits(target=2))) == first
    assert idea_of(a_spec(program=Rules(entry_long=(rules.CrossesAbove("rsi_7", value=25.0),)))) == first
    assert idea_of(a_spec(program=Rules(entry_short=RSI.entry_long))) != first
    assert idea_of(a_spec(program=Grid())) != first
    assert idea_of(a_spec(program=OrderList((listed("buy", 1.0),)))) != first
