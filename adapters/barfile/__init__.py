"""Bars from a file on disk: CSV, gzipped CSV or Parquet; and funding rates, which are read alike.

`read_bars(path)` and `funding.read_funding(path)` are the whole interface.
`read` touches the disk and finds out what the file is; `delimited`
and `parquet` turn its contents into columns; `columns`, `numbers` and `times` say what names, numbers and
times may look like; `blame` finds the first bad line once something went wrong; `refusals` words the errors.
"""

from adapters.barfile.read import MAX_TEXT_BYTES, read_bars

__all__ = ["MAX_TEXT_BYTES", "read_bars"]
