"""Configurations from bytes: JSON, whose errors name line and column."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from daemon.core.errors import Code, InvalidRequest


def decode_config(content: bytes, where: str) -> dict[str, Any]:
    """Decode a configuration as it was written; what it says is `read`'s to check.

    where: names the content in messages. InvalidRequest INVALID_JSON with line and column, or INVALID_REQUEST where it
    is no object.
    """
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except msgspec.ValidationError:
        raise InvalidRequest(Code.INVALID_REQUEST, f"{where}: a configuration is a JSON object") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(Code.INVALID_JSON, f"{where} is not JSON: {error}{_place(content, str(error))}") from None


def _place(content: bytes, message: str) -> str:
    """Say where `byte N` of a message is."""
    found = re.search(r"\(byte (\d+)\)", message)
    if found is None:
        return ""
    before = content[: int(found[1])]
    return f", line {before.count(10) + 1}, column {len(before) - (before.rfind(10) + 1) + 1}"
