"""Ticks from a file on disk: CSV, gzipped CSV or Parquet, of any vendor.

`open_ticks(path, stream)` is the whole interface. `read` touches the disk and finds out what the file is; `delimited`
and `parquet` hand over its columns block by block; `columns` knows the names that vendors give them; `times` and
`values` turn them into whole numbers; `rows` puts them together and refuses what is no tick.
"""

from adapters.tickfile.read import open_ticks

__all__ = ["open_ticks"]
