"""Errors, sorted by what happens next.

A class says who has to act, a code says what happened and never changes between releases, the message says what is
wrong, where, and what to do. `api` maps classes to HTTP statuses in one table; the command line prints the message.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class Code(StrEnum):
    """Stable error codes; `docs/errors.md` lists each with its remedy."""

    # The start-up configuration.
    CONFIG_INVALID = "CONFIG_INVALID"
    STRATEGIES_INVALID = "STRATEGIES_INVALID"
    CACHE_UNUSABLE = "CACHE_UNUSABLE"
    ADDRESS_UNAVAILABLE = "ADDRESS_UNAVAILABLE"
    DATA_DIR_SHARED = "DATA_DIR_SHARED"
    TOKEN_UNUSABLE = "TOKEN_UNUSABLE"  # noqa: S105 - a code
    SECRET_IN_FILE = "SECRET_IN_FILE"  # noqa: S105 - a code
    SECRET_NOT_FOUND = "SECRET_NOT_FOUND"  # noqa: S105 - a code
    KEYCHAIN_UNAVAILABLE = "KEYCHAIN_UNAVAILABLE"
    # Requests.
    INVALID_REQUEST = "INVALID_REQUEST"
    INVALID_JSON = "INVALID_JSON"
    UNKNOWN_METHOD = "UNKNOWN_METHOD"
    NOT_AVAILABLE = "NOT_AVAILABLE"
    RESUME_GAP = "RESUME_GAP"
    DUPLICATE_ID = "DUPLICATE_ID"
    UNAUTHORIZED = "UNAUTHORIZED"
    ORIGIN_NOT_ALLOWED = "ORIGIN_NOT_ALLOWED"
    TOO_MANY_REQUESTS = "TOO_MANY_REQUESTS"
    INVALID_SYMBOL = "INVALID_SYMBOL"
    AMBIGUOUS_SYMBOL = "AMBIGUOUS_SYMBOL"
    INVALID_TIMEFRAME = "INVALID_TIMEFRAME"
    INVALID_RISK_PROFILE = "INVALID_RISK_PROFILE"
    INVALID_STRATEGY = "INVALID_STRATEGY"
    INVALID_DATE_RANGE = "INVALID_DATE_RANGE"
    INVALID_RUN_ID = "INVALID_RUN_ID"
    INVALID_CURSOR = "INVALID_CURSOR"
    INVALID_CONFIGURATION = "INVALID_CONFIGURATION"
    INVALID_PARAMETER = "INVALID_PARAMETER"
    LOOK_AHEAD = "LOOK_AHEAD"
    STRATEGY_NOT_FOUND = "STRATEGY_NOT_FOUND"
    STRATEGY_INVALID = "STRATEGY_INVALID"
    STRATEGY_EXISTS = "STRATEGY_EXISTS"
    STRATEGY_FOLDER_UNSAFE = "STRATEGY_FOLDER_UNSAFE"
    NO_BARS = "NO_BARS"
    NO_DEPTH = "NO_DEPTH"
    CALIBRATION_NOT_FOUND = "CALIBRATION_NOT_FOUND"
    TOO_FEW_TRADES = "TOO_FEW_TRADES"
    RUN_NOT_FOUND = "RUN_NOT_FOUND"
    ROUTE_NOT_FOUND = "ROUTE_NOT_FOUND"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    RUN_CONFLICT = "RUN_CONFLICT"
    RUN_FINISHED = "RUN_FINISHED"
    RUN_ACTIVE = "RUN_ACTIVE"
    BACKTEST_NOT_FOUND = "BACKTEST_NOT_FOUND"
    BACKTEST_EXISTS = "BACKTEST_EXISTS"
    BACKTEST_ACTIVE = "BACKTEST_ACTIVE"
    BACKTEST_FINISHED = "BACKTEST_FINISHED"
    BACKTEST_NOT_FINISHED = "BACKTEST_NOT_FINISHED"
    NO_VALIDATION = "NO_VALIDATION"
    MONTE_CARLO_NOT_FOUND = "MONTE_CARLO_NOT_FOUND"
    OPTIMIZATION_NOT_FOUND = "OPTIMIZATION_NOT_FOUND"
    OPTIMIZATION_EXISTS = "OPTIMIZATION_EXISTS"
    OPTIMIZATION_ACTIVE = "OPTIMIZATION_ACTIVE"
    OPTIMIZATION_FINISHED = "OPTIMIZATION_FINISHED"
    OPTIMIZATION_NOT_FINISHED = "OPTIMIZATION_NOT_FINISHED"
    MEMORY_BOUND_EXCEEDED = "MEMORY_BOUND_EXCEEDED"
    HOST_NOT_ALLOWED = "HOST_NOT_ALLOWED"
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"
    BODY_TOO_LARGE = "BODY_TOO_LARGE"
    # Files and sources of market data.
    SOURCE_NOT_FOUND = "SOURCE_NOT_FOUND"
    SOURCE_UNREADABLE = "SOURCE_UNREADABLE"
    SOURCE_EMPTY = "SOURCE_EMPTY"
    SOURCE_COLUMN_MISSING = "SOURCE_COLUMN_MISSING"
    SOURCE_VALUE_INVALID = "SOURCE_VALUE_INVALID"
    BARS_INVALID = "BARS_INVALID"
    BARS_CONFLICT = "BARS_CONFLICT"
    TICKS_INVALID = "TICKS_INVALID"
    TICKS_CONFLICT = "TICKS_CONFLICT"
    FUNDING_INVALID = "FUNDING_INVALID"
    FUNDING_CONFLICT = "FUNDING_CONFLICT"
    CHECKSUM_DIFFERS = "CHECKSUM_DIFFERS"
    # Venues.
    SYMBOL_UNKNOWN = "SYMBOL_UNKNOWN"
    SOURCE_UNAVAILABLE = "SOURCE_UNAVAILABLE"
    SOURCE_BLOCKED = "SOURCE_BLOCKED"
    SOURCE_ANSWER_INVALID = "SOURCE_ANSWER_INVALID"
    RATE_LIMITED = "RATE_LIMITED"
    # The store.
    STORE_FULL = "STORE_FULL"
    STORE_CORRUPT = "STORE_CORRUPT"
    STORE_SCHEMA = "STORE_SCHEMA"
    STORE_LOCKED = "STORE_LOCKED"
    STORE_UNUSABLE = "STORE_UNUSABLE"
    # Work in progress.
    DAEMON_UNREACHABLE = "DAEMON_UNREACHABLE"
    WORKER_CRASHED = "WORKER_CRASHED"
    STRATEGY_RAISED = "STRATEGY_RAISED"
    STRATEGY_TIMEOUT = "STRATEGY_TIMEOUT"
    STRATEGY_MEMORY = "STRATEGY_MEMORY"
    NO_ROWS = "NO_ROWS"
    OUTPUT_UNWRITABLE = "OUTPUT_UNWRITABLE"
    PACKAGE_MISSING = "PACKAGE_MISSING"
    INTERRUPTED = "INTERRUPTED"
    CANCELLED = "CANCELLED"
    INTERNAL = "INTERNAL"


# Codes of data that is kept out: the same remedy wherever they come from.
DATA_CODES: Final = frozenset(
    {
        Code.SOURCE_UNREADABLE,
        Code.SOURCE_EMPTY,
        Code.SOURCE_COLUMN_MISSING,
        Code.SOURCE_VALUE_INVALID,
        Code.BARS_INVALID,
        Code.TICKS_INVALID,
        Code.FUNDING_INVALID,
        Code.CHECKSUM_DIFFERS,
    }
)


class AtlasError(Exception):
    """Base of every error that is ours; raised as one of its subclasses."""

    def __init__(self, code: Code, message: str, details: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = dict(details) if details else None

    def __reduce__(self) -> tuple[object, ...]:
        """Travel between processes whole: the default would pass the message as the code."""
        return type(self), (self.code, self.message, self.details)


class ConfigError(AtlasError):
    """The user corrects a file or option; the process exits."""


class InvalidRequest(AtlasError):  # noqa: N818 - named by what happens next, as the house does
    """The caller corrects the request (HTTP 400)."""


class Forbidden(AtlasError):  # noqa: N818
    """The caller may not ask this from where it stands (HTTP 403)."""


class NotFound(AtlasError):  # noqa: N818
    """The caller asks for something else (HTTP 404)."""


class Conflict(AtlasError):  # noqa: N818
    """The caller decides between what is stored and what was asked (HTTP 409)."""


class SourceUnavailable(AtlasError):  # noqa: N818
    """A source does not answer; try again later."""


class RateLimited(SourceUnavailable):
    """A source asks to wait `details["retry_after_s"]` seconds; not an error of the user's."""


class SourceDataInvalid(AtlasError):  # noqa: N818
    """A source's data is wrong: it is kept out, the user looks at the file."""


class Unauthorized(AtlasError):  # noqa: N818
    """The caller shows who it is (HTTP 401)."""


class TooManyRequests(AtlasError):  # noqa: N818
    """The caller waits `details["retry_after_s"]` seconds (HTTP 429)."""


class NotAvailable(AtlasError):  # noqa: N818
    """The caller waits for a later release (HTTP 501)."""


class StoreFull(AtlasError):  # noqa: N818
    """Disk or map is full: nothing was half-written; make room, then try again."""


class StoreCorrupt(AtlasError):  # noqa: N818
    """The store cannot be trusted or read; halt."""


class JobFailed(AtlasError):  # noqa: N818
    """A unit of work died; the run says which, and can be resumed."""


class StrategyFailed(AtlasError):  # noqa: N818
    """A strategy of the user's own raised or outran its budget: its author corrects it, or raises the budget.

    details["traceback"]: lines of its own file, where it raised.
    """
