"""Orders as users write them: how entries are sent, how large they are, and lists of their own orders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from daemon.core.backtest import (
    AtrRisk,
    EntryOrder,
    Exits,
    Fixed,
    FixedFractional,
    Kelly,
    ListedOrder,
    OrderList,
    Sizing,
    Trailing,
    VolatilityTarget,
)
from daemon.core.errors import AtlasError, Code
from daemon.research.backtest_config.fields import (
    Fields,
    at_field,
    camel,
    choice,
    moment,
    names_of,
    parsed_number,
    read_struct,
    refused,
    shown,
)
from daemon.research.backtest_config.rules import check_stop, read_distance, read_trailing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.core.backtest import Distance, Market
    from daemon.core.market import TsNs
    from daemon.store.bars import BarStore

SIZINGS: Final[dict[str, Any]] = {
    "fixed": Fixed,
    "fixed_fractional": FixedFractional,
    "kelly": Kelly,
    "volatility": VolatilityTarget,
    "atr": AtrRisk,
}
ENTRY_FIELDS: Final = tuple(names_of(EntryOrder))
TRAIL_FIELDS: Final = ("distance", "activation")
ORDER_FIELDS: Final = (
    "time", "symbol", "side", "type", "quantity", "notional", "price", "stopPrice", "trail", "timeInForce", "expires",
    "postOnly", "reduceOnly", "oco", "takeProfit", "stopLoss", "trailingStop",
)  # fmt: skip
_MOST_ORDERS: Final = 100_000
_PRICED: Final = ("limit", "stop_limit", "take_profit")
_STOPPED: Final = ("stop", "stop_limit")


def read_entry_order(given: object, path: str) -> EntryOrder:
    """Read how entries are sent, and refuse what its type has no use for."""
    if isinstance(given, str):
        given = {"type": given}
    fields = Fields(given, path, ENTRY_FIELDS)
    order = EntryOrder(
        type=fields.of(EntryOrder, "type"),
        offset=read_distance(fields.raw("offset"), fields.at("offset")) if "offset" in fields else None,
        limit_offset=(
            read_distance(fields.raw("limitOffset"), fields.at("limitOffset")) if "limitOffset" in fields else None
        ),
        time_in_force=fields.of(EntryOrder, "time_in_force"),
        good_for_bars=fields.of(EntryOrder, "good_for_bars"),
        post_only=fields.of(EntryOrder, "post_only"),
    )
    if order.type in _STOPPED:
        fields.needed("offset", "how far beyond the signal's close the stop lies, a fraction of it")
    elif order.type == "market" and order.offset is not None:
        raise refused(fields.at("offset"), "is for limit and stop orders: a market order has no price")
    if order.type == "stop_limit":
        fields.needed("limitOffset", "how far beyond the stop the limit lies, a fraction of it")
    elif order.limit_offset is not None:
        raise refused(fields.at("limitOffset"), f"is for stop_limit orders, this is a {order.type} order")
    if (order.time_in_force == "GTD") != (order.good_for_bars is not None):
        raise refused(fields.at("goodForBars"), 'goes with "timeInForce": "GTD", and with nothing else')
    _check_resting(fields, order.type, order.time_in_force, post_only=order.post_only)
    return order


def read_sizing(given: object, path: str) -> Sizing:
    """Read how large positions are: a type, or an object with the type and its parameters."""
    if isinstance(given, str):
        given = {"type": given}
    parameters = given if isinstance(given, dict) else {}
    kind = choice(parameters.get("type"), f"{path}.type", list(SIZINGS))
    struct = SIZINGS[kind]
    Fields(given, path, ["type", *names_of(struct)])
    sizing: Sizing = read_struct(struct, {name: each for name, each in parameters.items() if name != "type"}, path)
    return sizing


def read_orders(
    fields: Fields, markets: tuple[Market, ...], bars: BarStore, period: tuple[TsNs | None, TsNs | None]
) -> OrderList:
    """Read the user's own orders into order of time; those of one time stay as they are listed."""
    listed = [_order(given, path, markets, bars, period) for given, path in fields.items("orders", _MOST_ORDERS)]
    return OrderList(tuple(sorted(listed, key=lambda order: order.time_ns)))


def _order(
    given: object,
    path: str,
    markets: tuple[Market, ...],
    bars: BarStore,
    period: tuple[TsNs | None, TsNs | None],
) -> ListedOrder:
    fields = Fields(given, path, ORDER_FIELDS)
    amount = fields.only_one("quantity", "notional")
    of: dict[str, Any] = {
        name: fields.of(ListedOrder, name)
        for name in ("side", "type", "quantity", "notional", "price", "stop_price", "time_in_force", "post_only", "oco")
    }
    expires_ns = moment(fields.raw("expires"), fields.at("expires")) if "expires" in fields else None
    order = ListedOrder(
        time_ns=_within(fields, period),
        symbol=_market(fields, markets, bars),
        trail=_trail(fields, "trail"),
        expires_ns=expires_ns,
        reduce_only=fields.flag("reduceOnly", default=False) or amount is None,
        exits=_bracket(fields),
        **of,
    )
    _check_prices(fields, order)
    if (order.time_in_force == "GTD") != (expires_ns is not None):
        raise refused(fields.at("expires"), 'goes with "timeInForce": "GTD", and with nothing else')
    if expires_ns is not None and expires_ns <= order.time_ns:
        raise refused(fields.at("expires"), f"is {shown(fields.raw('expires'))}, it must be after the order's time")
    _check_resting(fields, order.type, order.time_in_force, post_only=order.post_only)
    return order


def _within(fields: Fields, period: tuple[TsNs | None, TsNs | None]) -> TsNs:
    time_ns = moment(fields.needed("time", "when the order is sent"), fields.at("time"))
    start_ns, stop_ns = period
    if (start_ns is not None and time_ns < start_ns) or (stop_ns is not None and time_ns >= stop_ns):
        why = f"is {shown(fields.raw('time'))}, outside of the backtest's dates"
        raise refused(fields.at("time"), why, Code.INVALID_DATE_RANGE)
    return time_ns


def _market(fields: Fields, markets: tuple[Market, ...], bars: BarStore) -> int:
    instruments = [market.instrument for market in markets]
    name = fields.text("symbol")
    if name is None:
        if len(markets) == 1:
            return 0
        raise refused(fields.at("symbol"), f"is missing: one of {', '.join(each.key for each in instruments)}")
    try:
        instrument = bars.resolve(name)
    except AtlasError as error:
        raise at_field(error, fields.at("symbol")) from None
    if instrument not in instruments:
        why = f"is {shown(name)}, none of backtest.symbols ({', '.join(each.key for each in instruments)})"
        raise refused(fields.at("symbol"), why, Code.INVALID_SYMBOL)
    return instruments.index(instrument)


def _trail(fields: Fields, name: str) -> Trailing | None:
    given = fields.raw(name)
    if given is None:
        return None
    if parsed_number(given) is not None:
        given = {"distance": given}
    return read_trailing(Fields(given, fields.at(name), TRAIL_FIELDS))


def _bracket(fields: Fields) -> Exits:
    profit, loss = (
        read_distance(fields.raw(name), fields.at(name)) if name in fields else None
        for name in ("takeProfit", "stopLoss")
    )
    if loss is not None:
        check_stop(loss, fields.at("stopLoss"))
    return Exits(take_profit=profit, stop_loss=loss, trailing_stop=_trail(fields, "trailingStop"))


def _check_prices(fields: Fields, order: ListedOrder) -> None:
    """Refuse prices that are missing or of no use."""
    wanted = {
        "price": order.type in _PRICED,
        "stopPrice": order.type in _STOPPED,
        "trail": order.type == "trailing_stop",
    }
    for name, is_wanted in wanted.items():
        if is_wanted:
            fields.needed(name, f"a {order.type} order needs one")
        elif name in fields:
            raise refused(fields.at(name), f"is of no use to a {order.type} order")
    for name, distance in _distances(order):
        if distance is not None and distance.unit == "atr":
            raise refused(fields.at(name), "is in ATR: an order of a list knows no bar; give a fraction or a price")
    if order.trail is not None and order.trail.activation is not None and order.trail.activation.unit != "price":
        raise refused(fields.at("trail"), 'activation is the price from which the stop follows: write {"price": 47000}')
    if order.reduce_only and order.exits != Exits():
        raise refused(fields.path, "reduces a position: takeProfit, stopLoss and trailingStop go with its entry")


def _distances(order: ListedOrder) -> Iterator[tuple[str, Distance | None]]:
    """Yield the distances of an order and its exits by the fields that they were given in."""
    yield "takeProfit", order.exits.take_profit
    yield "stopLoss", order.exits.stop_loss
    for name, trailing in (("trail", order.trail), ("trailingStop", order.exits.trailing_stop)):
        if trailing is not None:
            yield name, trailing.distance
            yield name, trailing.activation


def _check_resting(fields: Fields, kind: str, time_in_force: str, *, post_only: bool) -> None:
    if post_only and (kind not in ("limit", "stop_limit") or time_in_force in ("IOC", "FOK")):
        raise refused(fields.at(camel("post_only")), "is for limit orders that may rest (GTC or GTD)")
