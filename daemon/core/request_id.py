"""Which request the work at hand is done for: what joins a log's lines with the answer that a client got."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

REQUEST_ID: Final = ContextVar("request_id", default="")
"""Empty outside of requests. Threads that a request is handed to have it too; jobs, which outlive requests, do not."""
