"""The one table from errors to statuses, and the one place where a failure becomes an error body."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from daemon.api import answers
from daemon.core import errors
from daemon.core.errors import AtlasError, Code

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_log = logging.getLogger(__name__)

STATUSES: Final[dict[type[AtlasError], int]] = {
    errors.InvalidRequest: 400,
    errors.SourceDataInvalid: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.TooManyRequests: 429,
    errors.NotAvailable: 501,
    errors.SourceUnavailable: 503,
    errors.StoreFull: 507,
    errors.StoreCorrupt: 500,
    errors.JobFailed: 500,
    errors.StrategyFailed: 500,
    errors.ConfigError: 500,
}

# What the framework refuses by itself.
_REFUSALS: Final = {
    404: (Code.ROUTE_NOT_FOUND, "no such route: docs/http.md lists them"),
    405: (Code.METHOD_NOT_ALLOWED, "this route does not take this method"),
    408: (Code.INVALID_REQUEST, "the body did not come in time"),
    413: (Code.BODY_TOO_LARGE, "the body is larger than http.max_body_kb allows"),
}


def status_of(error: AtlasError) -> int:
    """Return the HTTP status of an error."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


@web.middleware
async def refusing(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Turn every failure into the one error body."""
    try:
        response: web.StreamResponse = await handler(request)
    except AtlasError as error:
        response = answers.refuse(status_of(error), error.code, error.message, error.details)
        response.headers.update(_headers(error))
    except web.HTTPUnsupportedMediaType:
        return answers.refuse(415, Code.UNSUPPORTED_MEDIA_TYPE, f"the body must be {answers.JSON}")
    except web.HTTPException as error:
        code, message = _REFUSALS.get(error.status, (Code.INVALID_REQUEST, error.reason))
        return answers.refuse(error.status, code, message)
    except (asyncio.CancelledError, ConnectionResetError):
        raise
    except Exception:  # noqa: BLE001 - the boundary: a defect answers 500 and is logged
        _log.exception("%s %s failed", request.method, request.path)
        return answers.refuse(500, Code.INTERNAL, "the daemon failed on this request; its log has the details")
    return response


def _headers(error: AtlasError) -> dict[str, str]:
    if isinstance(error, errors.Unauthorized):
        return {"WWW-Authenticate": "Bearer"}
    wait_s: Any = (error.details or {}).get("retry_after_s")
    return {} if wait_s is None else {"Retry-After": str(math.ceil(wait_s))}
