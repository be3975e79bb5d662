"""The flat configuration that the shipping client sends, turned into the nested form that everything else reads.

Decimals come as texts, times in Unix milliseconds, and percents where a name says so: takeProfitPercent 2 is 2 %.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from daemon.research.backtest_config.fields import Fields, Limits

if TYPE_CHECKING:
    from collections.abc import Mapping

PARAMETER_FIELDS: Final = (
    "takeProfitPercent", "stopLossPercent", "trailingStopPercent", "maxPositionSize", "maxPositions",
)  # fmt: skip
FLAT_FIELDS: Final = (
    "id", "name", "strategyId", "symbols", "timeframe", "startTime", "endTime", "initialCapital", "commissionRate",
    "slippageRate", "useRealisticSlippage", "enableMevProtection", "blockDelayMs", "parameters", "monteCarloRuns",
    "stressTestMultiplier",
)  # fmt: skip
PATHS: Final[dict[str, str]] = {
    "strategy.strategyId": "strategyId",
    "backtest.symbols": "symbols",
    "backtest.timeframe": "timeframe",
    "backtest.startDate": "startTime",
    "backtest.endDate": "endTime",
    "backtest.initialCapital": "initialCapital",
    "backtest.commission": "commissionRate",
    "backtest.latencyMs": "blockDelayMs",
    "backtest.stressTestMultiplier": "stressTestMultiplier",
    "backtest.maxPositions": "parameters.maxPositions",
    "backtest.maxPositionSize": "parameters.maxPositionSize",
    "validation.monteCarlo.iterations": "monteCarloRuns",
    "strategy.exitRules": "parameters",
}
"""Fields of the nested form, and what the flat form calls them."""

# Of fields that pass as they are: their names in the nested form, by section.
_BACKTEST: Final = {flat: path.split(".")[1] for path, flat in PATHS.items() if path.startswith("backtest.")}
_PERCENTS: Final = Limits(least=0, most=10_000)
_STOP_PERCENTS: Final = Limits(least=0, below=100)


class Nested(NamedTuple):
    """A flat configuration in the nested form, and how it was read."""

    config: dict[str, Any]
    readings: tuple[str, ...]


def is_flat(config: Mapping[str, Any]) -> bool:
    """Tell the flat form: it has no `strategy` or `backtest`, and some field of its own."""
    own = [name for name in FLAT_FIELDS if name not in ("id", "name")]
    return not {"strategy", "backtest"} & set(config) and any(name in config for name in own)


def nested(config: Mapping[str, Any]) -> Nested:
    """Turn a flat configuration into the nested form; InvalidRequest names flat fields."""
    fields = Fields(config, "", FLAT_FIELDS)
    parameters = Fields(fields.raw("parameters") or {}, "parameters", PARAMETER_FIELDS)
    readings = ["The configuration is the app's flat one."]
    strategy: dict[str, Any] = {
        "strategyId": fields.needed("strategyId", "id or name of a strategy, or the name of a template")
    }
    exits = _exits(parameters)
    if exits:
        strategy["exitRules"] = exits
    backtest = {name: fields.raw(flat) for flat, name in _BACKTEST.items() if flat in fields.names}
    backtest |= {name: parameters.raw(name) for name in ("maxPositions", "maxPositionSize")}
    for name, flat in (("startDate", "startTime"), ("endDate", "endTime")):
        fields.needed(flat, "a time in Unix milliseconds")
        backtest[name] = fields.raw(flat)
    backtest |= _slippage(fields, readings)
    if "enableMevProtection" in fields and fields.flag("enableMevProtection", default=False):
        readings.append("enableMevProtection has no effect: bars and trades of a venue have no block to be reordered.")
    whole: dict[str, Any] = {"id": fields.raw("id"), "name": fields.raw("name")}
    whole |= {"strategy": strategy, "backtest": backtest}
    runs = fields.number("monteCarloRuns", Limits(least=0))
    if runs:
        monte_carlo = {"enabled": True, "iterations": fields.raw("monteCarloRuns")}
        whole["validation"] = {"monteCarlo": monte_carlo}
    return Nested(whole, tuple(readings))


def flat_path(path: str) -> str:
    """Return what the flat form calls a field of the nested form."""
    for ours, theirs in PATHS.items():
        if path == ours or path.startswith((f"{ours}.", f"{ours}[")):
            return theirs if theirs == "parameters" else theirs + path[len(ours) :]
    return path


def _exits(parameters: Fields) -> list[dict[str, Any]]:
    """Make exit rules of percents; 0 switches one off."""
    profit = parameters.number("takeProfitPercent", _PERCENTS)
    loss = parameters.number("stopLossPercent", _STOP_PERCENTS)
    trail = parameters.number("trailingStopPercent", _STOP_PERCENTS)
    return [
        *([{"type": "take_profit", "value": profit / 100}] if profit else []),
        *([{"type": "stop_loss", "value": loss / 100}] if loss else []),
        *([{"type": "trailing_stop", "distance": trail / 100}] if trail else []),
    ]


def _slippage(fields: Fields, readings: list[str]) -> dict[str, Any]:
    rate = fields.number("slippageRate", Limits(least=0, most=1))
    if fields.flag("useRealisticSlippage", default=rate is None):
        if rate:
            readings.append("useRealisticSlippage is on: slippage follows volume, slippageRate is not used.")
        return {"slippageModel": "volume_weighted"}
    if not rate:
        readings.append("useRealisticSlippage is off and slippageRate is 0: fills have no slippage.")
        return {"slippageModel": "none"}
    readings.append(f"Slippage is {rate * 100:.6g} % of the price of each fill.")
    return {"slippageModel": "fixed_bps", "slippage": {"bps": round(rate * 10_000, 9)}}
