"""`config:get`: the configuration as it was loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.api.protocol import Nothing, method
from daemon.api.settings import Setting

if TYPE_CHECKING:
    from daemon.api.protocol import Call


@method("config:get")
async def settings(call: Call, _request: Nothing) -> list[Setting]:
    """List every setting in effect and where it came from; secrets are not shown."""
    return list(call.services.settings)
