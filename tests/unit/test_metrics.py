import math
from decimal import Decimal
from fractions import Fraction

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive import metrics as naive

from daemon.engine import metrics
from daemon.research.backtest_result import Metrics, RiskMetrics, TradeStats

NAN = math.nan
# The fixture of empyrical's own tests, and what those tests expect of it (252 days a year).
MIXED = np.array([NAN, 1.0, 10.0, -4.0, 2.0, 3.0, 2.0, 1.0, -10.0]) / 100
# Of empyrical 0.7.1 and this benchmark, whose day without a value is one of our own gains.
BENCHMARK = np.array([NAN, 2.0, 4.0, NAN, 1.0, 5.0, -1.0, 2.0, -4.0]) / 100
RETURN = st.integers(-9_000, 9_000).map(lambda basis_points: basis_points / 10_000) | st.just(NAN) | st.just(0.0)
RETURNS = st.lists(RETURN, max_size=40)
PERIODS = st.sampled_from([252, 365])
PNL = st.lists(st.integers(-500, 500).map(lambda cents: cents / 100) | st.just(0.0), max_size=40)
FIFTH, FIRST = Fraction(1, 20), Fraction(1, 100)


def close_to(value):
    """As near as the rounding of either lets it be; None is only None."""
    return value if value is None else pytest.approx(value, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("figure", "expected"),
    [
        (metrics.sharpe_ratio, 1.7238613961706866),
        (metrics.annual_volatility, 0.9136465399704637),
        (metrics.downside_risk, 0.6044832503882965),
        (metrics.sortino_ratio, 2.605531251673693),
        (metrics.annual_return, 1.9135925373194231),
        (metrics.calmar_ratio, 19.135925373194233),
    ],
)
def test_figures_equal_empyricals_to_the_digits_that_a_float_carries(figure, expected):
    # The last digits printed there are rounding of their own: exact arithmetic gives an annual return of ...94290.
    assert figure(MIXED, 252) == pytest.approx(expected, rel=1e-14)


def test_the_fixtures_deepest_drawdown_is_a_tenth():
    assert metrics.daily_drawdowns(MIXED).max() == pytest.approx(0.1, rel=1e-14)


def test_crypto_is_annualised_on_365_days():
    expected = (2.0746675114386086, 3.1357573467873823, 3.706354044661887, 1.0995737810624624, 0.7274957044546724)
    functions = (
        metrics.sharpe_ratio,
        metrics.sortino_ratio,
        metrics.annual_return,
        metrics.annual_volatility,
        metrics.downside_risk,
    )
    assert [function(MIXED, 365) for function in functions] == pytest.approx(expected, rel=3e-14)


def test_tail_and_ulcer_figures_equal_the_published_ones():
    assert metrics.value_at_risk(MIXED, 0.05) == pytest.approx(0.079, rel=1e-14)
    assert metrics.value_at_risk(MIXED, 0.01) == pytest.approx(0.0958, rel=1e-14)
    assert metrics.gaussian_value_at_risk95(MIXED) == pytest.approx(0.0884184355616541, rel=1e-14)
    assert metrics.conditional_value_at_risk(MIXED, 0.05) == 0.1
    assert metrics.ulcer_index(MIXED) == pytest.approx(0.038782, abs=5e-7)


def test_alpha_and_beta_equal_empyricals_where_both_know_the_day():
    alpha, beta = metrics.alpha_beta(MIXED, BENCHMARK, 252)
    assert alpha == pytest.approx(-0.84702674, abs=5e-9)
    assert beta == pytest.approx(1.57731959, abs=5e-9)


def test_the_benchmark_against_itself_has_no_alpha_and_a_beta_of_one():
    assert metrics.alpha_beta(MIXED, MIXED, 365) == (0.0, pytest.approx(1.0))


@given(RETURNS, PERIODS)
def test_ratios_are_the_naive_ones(returns, periods):
    column = np.array(returns, dtype=float)
    pairs = [
        (metrics.annual_return, naive.annual_return),
        (metrics.annual_volatility, naive.volatility),
        (metrics.downside_risk, naive.downside),
        (metrics.sharpe_ratio, naive.sharpe),
        (metrics.sortino_ratio, naive.sortino),
        (metrics.calmar_ratio, naive.calmar),
    ]
    for ours, theirs in pairs:
        assert ours(column, periods) == close_to(theirs(returns, periods)), ours.__name__
    assert metrics.ulcer_index(column) == close_to(naive.ulcer(returns))
    for cutoff in (FIFTH, FIRST):
        assert metrics.value_at_risk(column, float(cutoff)) == close_to(naive.value_at_risk(returns, cutoff))
        tail = naive.conditional_value_at_risk(returns, cutoff)
        assert metrics.conditional_value_at_risk(column, float(cutoff)) == close_to(tail)


@given(st.lists(st.tuples(RETURN, RETURN), max_size=40), PERIODS)
def test_alpha_and_beta_are_the_naive_ones(pairs, periods):
    ours, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
    found = metrics.alpha_beta(np.array(ours, dtype=float), np.array(theirs, dtype=float), periods)
    alpha, beta = naive.alpha_beta(ours, theirs, periods)
    assert found == (alpha if alpha is None else pytest.approx(alpha, rel=1e-6, abs=1e-9), close_to(beta))


@given(st.lists(st.floats(-3, 1e6) | st.just(NAN), max_size=12), PERIODS)
def test_no_figure_is_ever_nan_or_infinite(returns, periods):
    column = np.array(returns, dtype=float)
    figures = (
        *metrics.risk_figures(column, np.roll(column, 1), periods, net_profit=1e300, max_drawdown=1e-300),
        *metrics.return_figures(
            column, periods, initial=100.0, final=90.0, max_drawdown=10.0, max_drawdown_percent=10.0
        ),
    )
    assert all(figure is None or math.isfinite(figure) for figure in figures)


@pytest.mark.parametrize("returns", [[], [0.05], [NAN, 0.05]])
def test_below_two_known_days_nothing_but_growth_has_a_value(returns):
    column = np.array(returns, dtype=float)
    figures = metrics.risk_figures(column, column, 365, net_profit=5.0, max_drawdown=0.0)
    assert set(figures._replace(ulcer_index=None)) == {None}
    assert figures.ulcer_index == 0.0
    assert metrics.sharpe_ratio(column, 365) is metrics.sortino_ratio(column, 365) is None
    assert (metrics.annual_return(column, 365) is None) == (column.size < 2)


@pytest.mark.parametrize("equity", [[100.0] * 9, [100 * 1.01**day for day in range(30)]])
def test_returns_that_differ_by_rounding_alone_have_no_ratio(equity):
    returns = np.diff(equity) / np.array(equity[:-1])
    assert metrics.annual_volatility(returns, 365) == metrics.downside_risk(returns, 365) == 0.0
    assert metrics.sharpe_ratio(returns, 365) is metrics.sortino_ratio(returns, 365) is None
    assert metrics.calmar_ratio(returns, 365) is None
    assert metrics.alpha_beta(np.linspace(0, 1, returns.size), returns, 365) == (None, None)


def test_constant_equity_loses_nothing_and_not_minus_nothing():
    figures = metrics.risk_figures(np.zeros(9), None, 365, net_profit=0.0, max_drawdown=0.0)
    assert figures[4:] == (0.0, 0.0, 0.0, 0.0, 0.0, None)
    assert not any(math.copysign(1, figure) < 0 for figure in figures if figure is not None)


@pytest.mark.parametrize("ruin", [-1.0, -1.5])
def test_a_ruined_run_returns_minus_all_of_it_a_year(ruin):
    returns = np.array([0.1, ruin, 0.0, 0.0])
    assert metrics.annual_return(returns, 365) == -1.0
    assert metrics.calmar_ratio(returns, 365) == pytest.approx(1 / ruin)


def test_a_year_that_no_float_can_hold_has_no_value():
    returns = np.array([99.0, 99.0, -0.5])
    assert metrics.annual_return(returns, 365) is metrics.calmar_ratio(returns, 365) is None


def test_a_year_that_a_float_holds_as_a_fraction_but_not_in_percent_has_no_value():
    returns = np.array([47.1, 0.0])
    assert metrics.annual_return(returns, 365) > 1e306
    figures = metrics.return_figures(returns, 365, initial=1.0, final=48.1, max_drawdown=0.0, max_drawdown_percent=0.0)
    assert figures.annual_return_percent is None


def test_a_fall_of_a_last_digit_is_no_drawdown_to_divide_by():
    assert metrics.calmar_ratio(np.array([0.01, -2e-16]), 365) is None


def test_losing_more_than_all_every_day_has_no_alpha():
    assert metrics.alpha_beta(np.array([-1.5, -1.5]), np.array([0.01, -0.01]), 252) == (None, 0.0)


def test_powers_are_rounded_once_on_any_machine():
    # 1.5 ^ 182.5 to forty digits, by squaring and a square root in integers.
    exact = Decimal(math.isqrt(3**365 * 10**120 // 2**365)).scaleb(-60) - 1
    assert metrics.annual_return(np.array([0.5, 0.0]), 365) == float(exact)


def test_order_of_the_days_does_not_change_what_does_not_depend_on_it():
    days = np.random.default_rng(3).normal(0.001, 0.02, 700)
    for figure in (metrics.sharpe_ratio, metrics.sortino_ratio, metrics.annual_volatility):
        assert figure(days, 365) == figure(days[::-1].copy(), 365)


def test_returns_of_other_days_than_the_benchmarks_are_refused():
    with pytest.raises(ValueError, match="3 returns and 2 of the benchmark"):
        metrics.alpha_beta(np.zeros(3), np.zeros(2), 365)


# Figures of a result.


def test_return_figures_are_in_money_and_percent():
    figures = metrics.return_figures(
        MIXED, 252, initial=10_000.0, final=10_389.31, max_drawdown=1_300.0, max_drawdown_percent=12.5
    )
    assert figures.total_return == pytest.approx(389.31)
    assert figures.total_return_percent == pytest.approx(3.8931)
    assert figures.annual_return_percent == pytest.approx(191.35925373194231)
    assert figures.calmar_ratio == pytest.approx(19.135925373194233)
    assert figures[-2:] == (1_300.0, 12.5)


def test_risk_figures_are_in_percent_with_losses_positive():
    figures = metrics.risk_figures(MIXED, BENCHMARK, 252, net_profit=-300.0, max_drawdown=1_200.0)
    expected = (91.36465, 60.44833, 1.57732, -84.70267, 7.9, 9.58, 10.0, 8.84184, 3.87825, -0.25)
    assert figures == pytest.approx(expected, abs=1e-5)


def test_a_day_that_gains_even_in_the_tail_is_a_negative_loss():
    assert metrics.value_at_risk(np.array([0.01, 0.02]), 0.05) == pytest.approx(-0.0105)


def test_the_figures_fill_the_structs_of_a_result_one_to_one():
    pnl, hold = np.array([3.0, -1.0]), np.array([1, 2])
    returns = metrics.return_figures(
        MIXED, 252, initial=1.0, final=1.0, max_drawdown=0.0, max_drawdown_percent=0.0
    )._asdict()
    written = [
        Metrics(**returns, **metrics.trade_ratios(pnl)._asdict()),
        TradeStats(**metrics.trade_figures(pnl, hold)._asdict()),
        RiskMetrics(**metrics.risk_figures(MIXED, None, 252, net_profit=0.0, max_drawdown=0.0)._asdict()),
    ]
    names = [name for part in written for name in msgspec.to_builtins(part)]
    assert list(metrics.DEFINITIONS)[: len(names)] == names
    for part in written:
        assert msgspec.convert(msgspec.to_builtins(part), type(part)) == part


def test_every_definition_is_one_sentence():
    for text in metrics.DEFINITIONS.values():
        assert text.endswith(".")
        assert "\n" not in text


# Trades.


@given(PNL)
def test_figures_of_trades_are_the_naive_ones(pnl):
    hold = [1_000_003 * (place + 1) for place in range(len(pnl))]
    column, held = np.array(pnl, dtype=float), np.array(hold, dtype=np.int64)
    found = metrics.trade_figures(column, held)._asdict() | metrics.trade_ratios(column)._asdict()
    expected = naive.trades(pnl, hold)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == close_to(value), name


def test_without_trades_counts_are_zero_and_ratios_absent():
    nothing = np.empty(0), np.empty(0, dtype=np.int64)
    assert metrics.trade_figures(*nothing) == (0,) * 11
    assert metrics.trade_ratios(nothing[0]) == (0.0, None, 0.0, None)


def test_a_trade_of_exactly_nothing_is_neither_a_win_nor_a_loss_and_ends_a_run():
    figures = metrics.trade_figures(np.array([1.0, 1.0, 0.0, 1.0, -0.0, -1.0]), np.zeros(6, dtype=np.int64))
    assert (figures.winning_trades, figures.losing_trades, figures.break_even_trades) == (3, 1, 2)
    assert (figures.max_consecutive_wins, figures.max_consecutive_losses) == (2, 1)


def test_losses_are_positive_and_holding_is_in_milliseconds():
    pnl, hold = np.array([4.0, -1.0, -3.0]), np.array([1, 2, 3]) * 1_000_000_000
    figures = metrics.trade_figures(pnl, hold)
    assert (figures.average_loss, figures.largest_loss, figures.average_hold_time) == (2.0, 3.0, 2_000.0)
    assert metrics.trade_ratios(pnl) == (1 / 3, 1.0, 0.0, 2.0)


def test_only_losses_have_a_profit_factor_of_zero_and_no_payoff():
    assert metrics.trade_ratios(np.array([-1.0, -2.0])) == (0.0, 0.0, -1.5, None)


def test_many_long_holds_do_not_overflow():
    hold = np.full(100, 2**62, dtype=np.int64)
    assert metrics.trade_figures(np.ones(100), hold).average_hold_time == 2**62 / 10**6


# Costs and stakes.


def test_turnover_is_of_the_mean_equity():
    assert metrics.turnover(30.0, np.array([10.0, 20.0])) == 2.0
    assert metrics.turnover(30.0, np.empty(0)) is metrics.turnover(30.0, np.array([1.0, -1.0])) is None


def test_paying_the_break_even_cost_leaves_nothing():
    gross, notional, funding = 75.0, 20_000.0, -15.0
    rate = metrics.break_even_cost_percent(gross, notional, funding=funding)
    assert rate == pytest.approx(0.3)
    assert gross + funding - rate / 100 * notional == pytest.approx(0.0, abs=1e-12)
    assert metrics.paid_cost_percent(40.0, 20.0, notional) == pytest.approx(0.3)
    assert metrics.break_even_cost_percent(-10.0, 1_000.0) == pytest.approx(-1.0)


def test_without_fills_no_cost_has_a_rate():
    assert metrics.break_even_cost_percent(0.0, 0.0) is metrics.paid_cost_percent(0.0, 0.0, 0.0) is None


@pytest.mark.parametrize(
    ("win_rate", "payoff", "fraction"), [(0.6, 1, 0.2), (0.55, 1, 0.1), (0.5, 2, 0.25), (0.4, 2, 0.1), (0.5, 1, 0)]
)
def test_kelly_fractions_equal_the_published_ones(win_rate, payoff, fraction):
    assert metrics.kelly_fraction(win_rate, payoff) == pytest.approx(fraction, abs=1e-15)


def test_kellys_growth_equals_the_published_one_and_is_the_largest():
    assert metrics.kelly_growth(0.6, 1, 0.2) == pytest.approx(0.0201355, abs=5e-8)
    assert metrics.kelly_growth(0.6, 1, 0.2) > max(metrics.kelly_growth(0.6, 1, other) for other in (0.19, 0.21))


def test_continuous_kelly_equals_the_published_values():
    best = metrics.continuous_kelly(0.08, 0.2)
    assert best == pytest.approx(2.0)
    growths = [metrics.continuous_growth(0.08, 0.2, best * part) for part in (1, 0.5, 2)]
    assert growths == pytest.approx([0.08, 0.06, 0.0], abs=1e-15)


def test_a_bet_without_an_edge_has_a_negative_fraction():
    assert metrics.kelly_fraction(0.4, 1.0) == pytest.approx(-0.2)


@pytest.mark.parametrize(("win_rate", "payoff"), [(-0.1, 1), (1.1, 1), (NAN, 1), (0.5, 0), (0.5, -1), (0.5, NAN)])
def test_stakes_of_no_bet_are_refused(win_rate, payoff):
    with pytest.raises(ValueError, match="is"):
        metrics.kelly_fraction(win_rate, payoff)


@pytest.mark.parametrize("deviation", [0.0, -1.0, NAN])
def test_leverage_without_risk_is_refused(deviation):
    with pytest.raises(ValueError, match="deviation is"):
        metrics.continuous_kelly(0.08, deviation)
