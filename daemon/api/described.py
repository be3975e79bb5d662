"""How a route is described: what it takes, what it answers, and with which errors it refuses."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias

from msgspec import Meta

from daemon.api.answers import CSV, MAX_LIMIT
from daemon.core.errors import Code

CSV_TYPE: Final = CSV.partition(";")[0]
ARROW: Final = "application/vnd.apache.arrow.stream"
HTML: Final = "text/html"
PDF: Final = "application/pdf"
MSGPACK: Final = "application/msgpack"


class Parameter(NamedTuple):
    """One parameter of a query. kind: a type, whose JSON Schema it has."""

    name: str
    kind: Any
    words: str
    is_required: bool = False


class Route(NamedTuple):
    """One route.

    answers: types of its JSON body, one of them; none where there is no body. status: of these. files: media types that
    it may answer instead. request: type of the body. query: its parameters. errors: beside those of every route.
    may_be_empty: 204 is possible as well. is_open: it asks for no token. is_available: anything answers it.
    """

    method: str
    path: str
    summary: str
    answers: tuple[Any, ...] = ()
    status: int = 200
    files: tuple[str, ...] = ()
    request: Any = None
    query: tuple[Parameter, ...] = ()
    errors: tuple[Code, ...] = ()
    starts_job: bool = False
    may_be_empty: bool = False
    is_open: bool = False
    is_available: bool = True


# What many routes have.

Count: TypeAlias = Annotated[int, Meta(ge=1, le=MAX_LIMIT)]
Ordinal: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_LIMIT)]
Flag: TypeAlias = Literal["0", "1"]

CURSOR: Final = Parameter("cursor", str, "`next_cursor` of the page before")
PAGE: Final = (Parameter("limit", Count, "rows of a page at most; 1,000 unless given"), CURSOR)
MOMENT: Final = "a day (`2024-01-31`), a day and a clock, or Unix milliseconds"

SERIES_ERRORS: Final = (Code.INVALID_SYMBOL, Code.AMBIGUOUS_SYMBOL)
HISTORY_ERRORS: Final = (
    *SERIES_ERRORS,
    Code.INVALID_TIMEFRAME,
    Code.INVALID_DATE_RANGE,
    Code.INVALID_CURSOR,
    Code.NO_BARS,
    Code.NO_ROWS,
)
