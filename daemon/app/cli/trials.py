"""`atlasd trials`: how often each idea has been tried."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.app.cli.options import ConfigFile, DataDir, Format, Listing

if TYPE_CHECKING:
    from daemon.research.trial_lists import ListedIdea, ListedTrial


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("trials")(trials)


def trials(
    idea: Annotated[str | None, typer.Argument(metavar="IDEA", help="Every try of this idea.")] = None,
    form: Listing = Format.TABLE,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """List ideas with how often they were tried, or the tries of one.

    An idea is a strategy's rules without their numbers, symbols and timeframe. A run counts once, however often it is
    repeated. Sharpe ratios are of daily returns, not annual; chance is the best that so many tries give by luck.
    """
    from daemon.app import wiring
    from daemon.app.cli.output import emit
    from daemon.app.config import load
    from daemon.research.trial_lists import listed_ideas, listed_tries

    settings = load(config)
    with wiring.reader(settings, settings.data_dir(data_dir)) as store, store.env.read() as transaction:
        columns = _ideas(listed_ideas(transaction)) if idea is None else _tries(listed_tries(transaction, idea))
    emit(columns, form)


def _ideas(found: list[ListedIdea]) -> dict[str, list[Any]]:
    return {
        "idea": [each.idea for each in found],
        "name": [each.name for each in found],
        "tries": [each.tries for each in found],
        "best_daily_sharpe": [_rounded(each.best_daily_sharpe) for each in found],
        "chance_daily_sharpe": [_rounded(each.chance_daily_sharpe) for each in found],
        "first": [_second(each.first) for each in found],
        "last": [_second(each.last) for each in found],
    }


def _tries(found: list[ListedTrial]) -> dict[str, list[Any]]:
    return {
        "fingerprint": [each.fingerprint for each in found],
        "name": [each.name for each in found],
        "daily_sharpe": [_rounded(each.daily_sharpe) for each in found],
        "return_percent": [_rounded(each.return_percent) for each in found],
        "days": [each.days for each in found],
        "tried_at": [_second(each.tried_at) for each in found],
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _second(time_ms: int) -> str:
    from daemon.ingest.bars import iso

    return iso(time_ms * 1_000_000)
