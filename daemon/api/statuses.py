"""Which HTTP statuses a code is answered with, for descriptions; the status itself follows from the error's class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from daemon.core.errors import Code

if TYPE_CHECKING:
    from collections.abc import Iterable

CODES: Final[dict[int, frozenset[Code]]] = {
    400: frozenset(
        {
            Code.INVALID_REQUEST,
            Code.INVALID_JSON,
            Code.UNKNOWN_METHOD,
            Code.INVALID_SYMBOL,
            Code.AMBIGUOUS_SYMBOL,
            Code.INVALID_TIMEFRAME,
            Code.INVALID_RISK_PROFILE,
            Code.INVALID_STRATEGY,
            Code.INVALID_DATE_RANGE,
            Code.INVALID_RUN_ID,
            Code.INVALID_CURSOR,
            Code.INVALID_CONFIGURATION,
            Code.INVALID_PARAMETER,
            Code.STRATEGY_INVALID,
            Code.MEMORY_BOUND_EXCEEDED,
            Code.SOURCE_VALUE_INVALID,
            Code.BARS_INVALID,
            Code.TICKS_INVALID,
            Code.FUNDING_INVALID,
        }
    ),
    401: frozenset({Code.UNAUTHORIZED}),
    403: frozenset({Code.HOST_NOT_ALLOWED, Code.ORIGIN_NOT_ALLOWED}),
    404: frozenset(
        {
            Code.INVALID_SYMBOL,
            Code.INVALID_STRATEGY,
            Code.STRATEGY_NOT_FOUND,
            Code.NO_BARS,
            Code.NO_DEPTH,
            Code.NO_ROWS,
            Code.CALIBRATION_NOT_FOUND,
            Code.TOO_FEW_TRADES,
            Code.RUN_NOT_FOUND,
            Code.BACKTEST_NOT_FOUND,
            Code.OPTIMIZATION_NOT_FOUND,
            Code.MONTE_CARLO_NOT_FOUND,
            Code.NO_VALIDATION,
            Code.ROUTE_NOT_FOUND,
            Code.SOURCE_NOT_FOUND,
        }
    ),
    405: frozenset({Code.METHOD_NOT_ALLOWED}),
    409: frozenset(
        {
            Code.RUN_CONFLICT,
            Code.RUN_ACTIVE,
            Code.RUN_FINISHED,
            Code.STRATEGY_EXISTS,
            Code.BACKTEST_EXISTS,
            Code.BACKTEST_ACTIVE,
            Code.BACKTEST_FINISHED,
            Code.BACKTEST_NOT_FINISHED,
            Code.OPTIMIZATION_EXISTS,
            Code.OPTIMIZATION_ACTIVE,
            Code.OPTIMIZATION_FINISHED,
            Code.OPTIMIZATION_NOT_FINISHED,
            Code.RESUME_GAP,
            Code.BARS_CONFLICT,
            Code.TICKS_CONFLICT,
            Code.FUNDING_CONFLICT,
        }
    ),
    413: frozenset({Code.BODY_TOO_LARGE}),
    415: frozenset({Code.UNSUPPORTED_MEDIA_TYPE}),
    429: frozenset({Code.TOO_MANY_REQUESTS}),
    500: frozenset({Code.INTERNAL, Code.STORE_CORRUPT, Code.LOOK_AHEAD, Code.STRATEGY_FOLDER_UNSAFE}),
    501: frozenset({Code.NOT_AVAILABLE}),
    507: frozenset({Code.STORE_FULL}),
}
"""By status, the codes that routes and methods name."""


def by_status(codes: Iterable[Code]) -> dict[int, list[Code]]:
    """Sort codes by the statuses they come with; a code may have two. KeyError for one that has none."""
    found: dict[int, list[Code]] = {}
    for code in dict.fromkeys(codes):
        statuses = [status for status, known in CODES.items() if code in known]
        if not statuses:
            raise KeyError(code)
        for status in statuses:
            found.setdefault(status, []).append(code)
    return dict(sorted(found.items()))
