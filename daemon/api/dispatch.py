"""The table of all methods, and the one way to have any of them answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from daemon.api.methods import backend, backtests, configuration, data, later, probes, stream, studies
from daemon.api.protocol import Method
from daemon.core.errors import Code, InvalidRequest, NotAvailable

if TYPE_CHECKING:
    from daemon.api.protocol import Call

METHODS: Final[dict[str, Method]] = {
    each.name: each
    for module in (backend, backtests, data, probes, studies, stream, configuration, later)
    for each in vars(module).values()
    if isinstance(each, Method)
}
"""By name, in the order of the rooms."""

COMMON_ERRORS: Final = (Code.INVALID_JSON, Code.INVALID_REQUEST, Code.UNKNOWN_METHOD, Code.INTERNAL)
"""What any method may answer."""


def find(name: str) -> Method:
    """Return a method; InvalidRequest UNKNOWN_METHOD."""
    if name not in METHODS:
        raise InvalidRequest(
            Code.UNKNOWN_METHOD, f"there is no method `{name[:60]}`: /api/v1/openapi.json lists them all"
        )
    return METHODS[name]


def read_fields(wanted: Method, fields: Any) -> msgspec.Struct:
    """Check a payload's fields; numbers may be written as texts. InvalidRequest INVALID_REQUEST names the path."""
    try:
        return msgspec.convert({} if fields is None else fields, wanted.request, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequest(Code.INVALID_REQUEST, str(error)) from None


async def answer(call: Call, name: str, fields: Any) -> Any:
    """Have a method answered: a struct, a list of them, or `msgspec.Raw` of JSON; AtlasError as the method says."""
    wanted = find(name)
    if wanted.handler is None:
        raise NotAvailable(
            Code.NOT_AVAILABLE, f"{name} is not available in this release: `x-available` is false in openapi.json"
        )
    request = read_fields(wanted, fields)
    if not wanted.starts_job:
        return await wanted.handler(call, request)
    with call.services.starts.one():
        return await wanted.handler(call, request)
