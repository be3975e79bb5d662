"""What verdicts say of luck and of a choice among many."""

import msgspec
import numpy as np
import pytest
from verdicts import sample_overfitting

from daemon.research.trials import Idea
from daemon.research.weighing import luck_check, luck_of, luck_remedy, pbo_check, spa_check

# 31 days of a Sharpe ratio of some 4 a year: short of what would prove a single try.
RETURNS = np.tile((0.03, -0.02), 16)[:31]


def tries(known, variance):
    return Idea("1a", "breakout", tries=known, known=known, squares=variance * (known - 1))


def test_no_length_of_record_is_said_to_prove_the_best_of_many_tries():
    found = luck_of(RETURNS, 365, 8_473, tries(8_473, 0.02))
    assert luck_check(found).standing == "fail"
    first, *others = luck_remedy(found, RETURNS.size)
    assert first.startswith("data that none of the 8,473 tries has seen; in less than ")
    assert all("found in one try" in each for each in others)


def test_a_single_try_is_told_how_many_days_would_prove_it():
    returns = np.tile((0.02, -0.018), 20)
    [said] = luck_remedy(luck_of(returns, 365, 1, None), returns.size)
    assert "found in one try" in said
    assert said.endswith("there are 40")


def test_nothing_proves_a_sharpe_ratio_below_0():
    assert luck_remedy(luck_of(-np.abs(RETURNS), 365, 8_473, None), RETURNS.size) == []


def test_tries_that_are_all_alike_leave_one_to_judge():
    alike = luck_of(RETURNS, 365, 400, tries(400, 0.0))
    assert alike.chance == 0
    assert alike.deflated == alike.probabilistic == luck_of(RETURNS, 365, 1, None).deflated


def test_two_values_of_returns_are_not_said_to_be_no_sharpe_ratio():
    found = luck_check(luck_of(RETURNS, 365, 1, None)._replace(deflated=None))
    assert found.standing == "unknown"
    assert "two values" in found.words
    assert "did not move" in luck_check(luck_of(np.zeros(31), 365, 1, None)).words


def test_the_spread_of_tries_counts_once_ten_are_known():
    few, enough = (luck_of(RETURNS, 365, count, tries(count, 0.25)) for count in (9, 10))
    assert few.chance * 2 < enough.chance
    assert "31 days" in few.spread
    assert "10 tries" in enough.spread


@pytest.mark.parametrize(("p", "standing"), [(0.049, "pass"), (0.051, "warn"), (1.0, "warn")])
def test_the_best_of_a_sweep_must_stand_out_of_as_many_that_earn_nothing(p, standing):
    found = spa_check(msgspec.structs.replace(sample_overfitting(), spa_p=p))
    assert found.standing == standing


def test_pbo_is_said_with_what_it_is_on_other_cuts():
    found = pbo_check(msgspec.structs.replace(sample_overfitting(), pbo=0.2, pbo_lowest=0.05, pbo_highest=0.8))
    assert (found.standing, found.limit) == ("pass", 0.25)
    assert found.words.endswith("in 20 % of splits (5 to 80 % of others)")


def test_what_could_not_be_tested_is_not_asked():
    unknown = msgspec.structs.replace(sample_overfitting(), pbo=None, spa_p=None)
    assert pbo_check(unknown) is None
    assert spa_check(unknown) is None
    assert pbo_check(None) is None
    assert spa_check(None) is None
