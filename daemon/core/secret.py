"""Fields of a configuration that hold secrets: said once, where the field is declared."""

from __future__ import annotations

import typing
from typing import Annotated, Any, Final, TypeAlias

from msgspec import Meta

_MARK: Final = "is_secret"

Secret: TypeAlias = Annotated[str, Meta(extra={_MARK: True})]
"""A text that never stands in a file: it comes from the environment, or from the system's keychain."""


def is_secret(kind: Any) -> bool:
    """Tell whether a field's type, as `get_type_hints(…, include_extras=True)` gives it, is a secret's."""
    metas = typing.get_args(kind)[1:] if typing.get_origin(kind) is Annotated else ()
    return any(isinstance(meta, Meta) and _MARK in (meta.extra or {}) for meta in metas)
