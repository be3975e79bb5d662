"""Section `[http]` of config.toml; apart from the server, so that reading it loads no web framework."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class HttpConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where to listen and what to let in. max_body_kb: KiB. allowed_hosts: names beside the loopback ones."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8080
    allowed_hosts: list[str] = []
    max_body_kb: Annotated[int, Meta(ge=1, le=65_536)] = 1024
