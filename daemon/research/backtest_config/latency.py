"""How long messages take, as users write it: milliseconds, a range to draw from, or what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from daemon.core.execution import Latency
from daemon.core.market import NS_PER_SECOND
from daemon.research.backtest_config.fields import (
    Fields,
    Limits,
    at_field,
    number,
    parsed_number,
    refused,
    shown,
)
from daemon.research.latency_calibration import latency_of, not_measured, spoken_latency

if TYPE_CHECKING:
    from daemon.core.backtest import Market
    from daemon.store.bars import BarStore

LATENCY_FIELDS: Final = ("feed", "order", "seed")
LATENCY_SHAPE: Final[dict[str, Any]] = {
    "feed": {"least": {}, "most": {}},
    "order": {"least": {}, "most": {}, "measured": {}},
    "seed": {},
}
"""The fields below `latencyMs` that `--set` may name."""

DRAWN_FILLS: Final = ("book",)
"""The fills that take each message's own delay; the others know one of all orders."""

_MEASURED: Final = "measured"
_NS_PER_MS: Final = NS_PER_SECOND // 1_000
_MILLISECONDS: Final = Limits(least=0, most=3_600_000)
_FACTOR: Final = Limits(least=0, most=1_000)


class _Delay(NamedTuple):
    """One direction. factor: of what was measured, None where it is not."""

    least_ns: int = 0
    spread_ns: int = 0
    factor: float | None = None


def read_latency(
    fields: Fields, markets: tuple[Market, ...], bars: BarStore, fills: str, readings: list[str]
) -> Latency:
    """Read delays in milliseconds: one number is the order's.

    A symbol without a series where the latency is measured is refused: NotFound CALIBRATION_NOT_FOUND.
    """
    given, path = fields.raw("latencyMs"), fields.at("latencyMs")
    if given is None:
        return Latency()
    if not isinstance(given, dict):
        return Latency(order_ns=_ns(given, path))
    own = Fields(given, path, LATENCY_FIELDS)
    feed, order = (_delay(own.raw(name), own.at(name)) for name in ("feed", "order"))
    if feed.factor not in (None, 1.0):
        raise refused(own.at("feed"), f'is measured as it is: write "{_MEASURED}"; only the order has a factor')
    if order.factor is not None and feed.factor is None:
        why = f'is a multiple of the feed\'s, which is not measured: give "feed": "{_MEASURED}" as well'
        raise refused(own.at("order"), why)
    latency = Latency(
        feed_ns=feed.least_ns,
        order_ns=order.least_ns,
        feed_spread_ns=feed.spread_ns,
        order_spread_ns=order.spread_ns,
        measured=feed.factor is not None,
        order_factor=order.factor or 0.0 if feed.factor is not None else Latency().order_factor,
        seed=own.of(Latency, "seed"),
    )
    if fills not in DRAWN_FILLS and (latency.measured or latency.feed_spread_ns or latency.order_spread_ns):
        kind = "measured" if latency.measured else "drawn"
        why = f'is {kind}, and fills on {fills} know one number for all: give that, or "fills": "{DRAWN_FILLS[0]}"'
        raise refused(path, why)
    if latency.measured:
        _check_series(markets, bars, own.at("feed"), readings)
        if "order" not in own:
            readings.append(
                "latencyMs.order is not given: orders take no time, while the feed takes what was measured."
            )
    return latency


def _delay(given: object, path: str) -> _Delay:
    if given is None:
        return _Delay()
    if given == _MEASURED:
        return _Delay(factor=1.0)
    if isinstance(given, dict):
        if _MEASURED in given:
            own = Fields(given, path, (_MEASURED,))
            return _Delay(factor=number(own.needed(_MEASURED, "a factor"), own.at(_MEASURED), _FACTOR))
        own = Fields(given, path, ("least", "most"))
        least_ns, most_ns = (_ns(own.needed(name, "milliseconds"), own.at(name)) for name in ("least", "most"))
        if least_ns > most_ns:
            raise refused(own.at("most"), f"is {shown(own.raw('most'))}, it must be {own.at('least')} or more")
        return _Delay(least_ns, most_ns - least_ns)
    if parsed_number(given) is None:
        why = f'is {shown(given)}: neither milliseconds nor {{"least": 1, "most": 5}} nor "{_MEASURED}"'
        raise refused(path, why)
    return _Delay(_ns(given, path))


def _check_series(markets: tuple[Market, ...], bars: BarStore, path: str, readings: list[str]) -> None:
    with bars.ticks.env.read() as transaction:
        found = [(market.instrument, latency_of(transaction, market.instrument)) for market in markets]
    for instrument, calibration in found:
        if calibration is None:
            raise at_field(not_measured(instrument), path)
        readings.append(f"Feed latency of {instrument.key}: {spoken_latency(calibration)}.")


def _ns(given: object, path: str) -> int:
    return round(number(given, path, _MILLISECONDS) * _NS_PER_MS)
