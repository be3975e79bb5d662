"""Section `[http]` of config.toml, and what a setting is; apart from the server: this loads no web framework."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

# As browsers send it: no path, no capitals, no wildcard, and never `null`, which every sandboxed page is.
Origin: TypeAlias = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9+.-]*://[^/\s*A-Z]+$")]


class HttpConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where to listen and what to let in.

    allowed_hosts: names beside the loopback ones. allowed_origins: pages beside the daemon's own, `scheme://host:port`.
    max_body_kb, max_message_kb: KiB, of a request's body and of a message of the WebSocket.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8080
    allowed_hosts: list[str] = []
    allowed_origins: list[Origin] = []
    max_body_kb: Annotated[int, Meta(ge=1, le=65_536)] = 1024
    max_message_kb: Annotated[int, Meta(ge=1, le=65_536)] = 1024
    job_starts_per_s: Annotated[int, Meta(ge=1, le=10_000)] = 10


class Setting(msgspec.Struct, frozen=True):
    """One value of the configuration as it was loaded.

    key: `section.name`. origin: `default` as shipped. source: the file, or the environment's variable; null for
    the others. A secret's value says only whether there is one.
    """

    key: str
    value: Any
    origin: Literal["default", "file", "environment", "command line"]
    source: str | None
