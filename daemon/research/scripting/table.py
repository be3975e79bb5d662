"""Rows of a result as an Arrow table, NumPy columns or a pandas frame, made when they are first asked for."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from daemon.core.errors import Code, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import pyarrow as pa
    from numpy.typing import NDArray


class Table:
    """Rows with named columns. Whatever takes Arrow by its stream protocol takes this: Arrow, Polars, DuckDB, pandas.

    make: makes the Arrow table. needs: what must live until then.
    """

    def __init__(self, make: Callable[[], pa.Table], needs: object = None) -> None:
        self._make = make
        self._needs = needs

    @cached_property
    def arrow(self) -> pa.Table:
        """The pyarrow Table: times in UTC to the nanosecond, null where there is no value."""
        return self._make()

    @property
    def names(self) -> list[str]:
        """Names of the columns, in order."""
        return list(self.arrow.column_names)

    def frame(self) -> Any:
        """Return a pandas DataFrame; ConfigError PACKAGE_MISSING where pandas is not installed."""
        try:
            import pandas  # noqa: F401, ICN001 - Arrow's own complaint says less
        except ModuleNotFoundError as error:
            raise ConfigError(
                Code.PACKAGE_MISSING,
                f"a frame needs pandas, which is not installed here ({error}): `pip install pandas`, or take `.arrow` "
                "or `.columns()`",
                {"package": "pandas"},
            ) from error
        return self.arrow.to_pandas()

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the columns by name: times int64 ns, numbers float64 with NaN for none, texts as objects."""
        return {name: _plain(self.arrow.column(name)) for name in self.names}

    def __len__(self) -> int:
        return int(self.arrow.num_rows)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.arrow.__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        return f"Table({len(self):,} rows: {', '.join(self.names)})"


def of_columns(names: Iterable[str], blocks: Iterable[Mapping[str, NDArray[Any]]]) -> pa.Table:
    """Make an Arrow table of blocks of columns; datetime64 becomes times in UTC, NaN and None become null."""
    import pyarrow as pa

    tables = [pa.table({name: _array(column) for name, column in block.items()}) for block in blocks]
    return pa.concat_tables(tables) if tables else pa.table({name: pa.nulls(0) for name in names})


def _array(column: NDArray[Any]) -> pa.Array:
    import pyarrow as pa

    if column.dtype == np.dtype("datetime64[ns]"):
        return pa.array(column).cast(pa.timestamp("ns", tz="UTC"))
    return pa.array(column, from_pandas=True)


def _plain(column: pa.ChunkedArray) -> NDArray[Any]:
    values: NDArray[Any] = column.to_numpy()
    return values.view(np.int64) if values.dtype == np.dtype("datetime64[ns]") else values
