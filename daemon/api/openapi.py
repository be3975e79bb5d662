"""The OpenAPI document of all routes and methods, and the JSON Schema of methods, frames and events.

Both are made from the types that requests are read with and answers are written from, once, when somebody asks: that
takes tens of milliseconds, so on a thread.
"""

from __future__ import annotations

import functools
import inspect
import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

import daemon
from daemon.api.described import Parameter, Route
from daemon.api.dispatch import COMMON_ERRORS, METHODS
from daemon.api.messages import ErrorAnswer
from daemon.api.protocol import EventFrame, FailureFrame, RequestFrame, ResponseFrame
from daemon.api.rest import ROUTES
from daemon.api.statuses import by_status
from daemon.core.errors import Code
from daemon.core.events import EVENTS, RESERVED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from daemon.api.protocol import Method

JSON: Final = "application/json"
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_PLACEHOLDER: Final = re.compile(r"\{(\w+)\}")
_NO_CONTENT: Final = 204

_FRAMES: Final = (RequestFrame, ResponseFrame, FailureFrame, EventFrame)

# Errors of every route, whatever it does.
_ALWAYS: Final = (
    Code.INVALID_REQUEST,
    Code.HOST_NOT_ALLOWED,
    Code.ORIGIN_NOT_ALLOWED,
    Code.INTERNAL,
    Code.STORE_CORRUPT,
)
_OF_BODIES: Final = (Code.INVALID_JSON, Code.BODY_TOO_LARGE, Code.UNSUPPORTED_MEDIA_TYPE)

_PATH_WORDS: Final = {
    "run_id": "id of a probe run",
    "backtest_id": "id of a backtest",
    "optimization_id": "id of an optimisation",
    "strategy_id": "number of a strategy",
    "idea": "id of an idea, as the list of ideas has it",
    "symbol": "`venue:SYMBOL`, or `SYMBOL` where one venue has it",
    "source": "where the signals come from",
}

_ABOUT: Final = (
    "A local trading research daemon. Every method of the WebSocket at /ws is here as `POST /api/v1/rpc/{method}`. "
    "Times are Unix milliseconds. Numbers in a method's payload may be written as texts. `x-available`: false where "
    "nothing answers yet (501 NOT_AVAILABLE). `x-starts-job`: counts against the limit of job starts."
)


@functools.cache
def openapi_json() -> bytes:
    """Return the OpenAPI 3.1 document as JSON."""
    return msgspec.json.encode(openapi())


@functools.cache
def schema_json() -> bytes:
    """Return the bundle of JSON Schemas as JSON."""
    return msgspec.json.encode(schema_bundle())


def openapi() -> dict[str, Any]:
    """Make the OpenAPI 3.1 document."""
    routes = [*ROUTES, *map(_route_of, METHODS.values())]
    schemas = _Schemas(_types(routes), "#/components/schemas/")
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "atlasd", "version": daemon.__version__, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "tags": [{"name": name} for name in dict.fromkeys(_tag(route) for route in routes)],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "the token that `atlasd token` prints"}
            },
        },
    }


def schema_bundle() -> dict[str, Any]:
    """Make the bundle: `$defs` by name, and by name what methods, events and frames consist of."""
    events = EVENTS | RESERVED
    types = [type_ for method in METHODS.values() for type_ in (method.request, method.answer)]
    schemas = _Schemas([*types, *events.values(), *_FRAMES, ErrorAnswer], "#/$defs/")
    return {
        "$schema": DIALECT,
        "title": "atlasd",
        "description": "Requests, answers, frames and events of the daemon's protocol.",
        "x-version": daemon.__version__,
        "methods": {name: _described(method, schemas) for name, method in METHODS.items()},
        "events": {
            name: {
                "payload": schemas.of(kind),
                "summary": _summary(kind),
                "x-available": name in EVENTS,
                "x-fact": kind.IS_FACT,
            }
            for name, kind in events.items()
        },
        "frames": {kind.__name__: schemas.of(kind) for kind in _FRAMES},
        "errors": [str(code) for code in Code],
        "$defs": schemas.components,
    }


class _Schemas:
    """JSON Schemas of many types at once: `components` are the structs by name, the others refer to them."""

    def __init__(self, types: Iterable[Any], prefix: str) -> None:
        # Types that cannot be hashed (lists of literals, annotated ones) are told apart by how they are written.
        self._types = {repr(each): each for each in types}
        found, components = msgspec.json.schema_components(self._types.values(), ref_template=prefix + "{name}")
        self._schemas = dict(zip(self._types, found, strict=True))
        self.components = {name: _cleaned(schema) for name, schema in sorted(components.items())}

    def of(self, type_: Any) -> dict[str, Any]:
        """Return the schema of one of the types."""
        return self._schemas[repr(type_)]

    def one_of(self, types: Sequence[Any]) -> dict[str, Any]:
        """Return the schema of a value of any of the types."""
        return self.of(types[0]) if len(types) == 1 else {"anyOf": [self.of(each) for each in types]}


def _types(routes: Iterable[Route]) -> list[Any]:
    found: list[Any] = [ErrorAnswer]
    for route in routes:
        found += [*route.answers, *(parameter.kind for parameter in route.query)]
        found += [] if route.request is None else [route.request]
    return found


def _cleaned(schema: dict[str, Any]) -> dict[str, Any]:
    words = {"description": inspect.cleandoc(schema["description"])} if "description" in schema else {}
    return schema | words


def _summary(kind: type) -> str:
    return (inspect.getdoc(kind) or "").partition("\n")[0]


# Methods.


def _route_of(method: Method) -> Route:
    """Describe a method as the route that it has over HTTP."""
    return Route(
        "POST",
        f"/api/v1/rpc/{method.name}",
        method.summary,
        (method.answer,),
        request=method.request,
        errors=(*COMMON_ERRORS, *method.errors),
        starts_job=method.starts_job,
        is_available=method.is_available,
    )


def _described(method: Method, schemas: _Schemas) -> dict[str, Any]:
    available = () if method.is_available else (Code.NOT_AVAILABLE,)
    return {
        "summary": method.summary,
        "request": schemas.of(method.request),
        "answer": schemas.of(method.answer),
        "errors": [str(code) for code in (*COMMON_ERRORS, *method.errors, *available)],
        "x-available": method.is_available,
        "x-starts-job": method.starts_job,
    }


# Routes.


def _operation(route: Route, schemas: _Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _identifier(route),
        "summary": route.summary,
        "tags": [_tag(route)],
        "x-available": route.is_available,
        "x-starts-job": route.starts_job,
        "parameters": [*_path_parameters(route), *(_query_parameter(each, schemas) for each in route.query)],
        "responses": _answers(route, schemas) | _refusals(route, schemas),
    }
    if route.method == "POST":
        operation["requestBody"] = _body(route, schemas)
    if route.is_open:
        operation["security"] = []
    return operation


def _body(route: Route, schemas: _Schemas) -> dict[str, Any]:
    if route.request is not None:
        return {"required": True, "content": {JSON: {"schema": schemas.of(route.request)}}}
    # A form must not be able to send it, so it is declared as JSON even where nothing is in it.
    words = f"Not read, but sent as {JSON}: other content types are refused."
    return {"required": True, "description": words, "content": {JSON: {"schema": {"type": "object"}}}}


def _identifier(route: Route) -> str:
    words = re.findall(r"\w+", route.path.removeprefix("/api"))
    return "_".join([route.method.lower(), *words])


def _tag(route: Route) -> str:
    parts = route.path.strip("/").split("/")
    return next(part for part in parts if part not in ("api", "v1"))


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": _PATH_WORDS[name],
            "schema": {"type": "string", "minLength": 1},
        }
        for name in _PLACEHOLDER.findall(route.path)
    ]


def _query_parameter(parameter: Parameter, schemas: _Schemas) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": "query",
        "required": parameter.is_required,
        "description": parameter.words,
        "schema": schemas.of(parameter.kind),
    }


def _answers(route: Route, schemas: _Schemas) -> dict[str, Any]:
    found: dict[str, Any] = {}
    content: dict[str, Any] = {media: {} for media in route.files}
    if route.answers:
        content[JSON] = {"schema": schemas.one_of(route.answers)}
    if content:
        found[str(route.status)] = {"description": route.summary, "content": content}
    if route.may_be_empty or not content:
        found[str(_NO_CONTENT)] = {"description": "Done; there is nothing to say."}
    return found


def _refusals(route: Route, schemas: _Schemas) -> dict[str, Any]:
    codes = [*_ALWAYS, *route.errors]
    codes += _OF_BODIES if route.method == "POST" else ()
    codes += () if route.is_open else (Code.UNAUTHORIZED,)
    codes += (Code.ROUTE_NOT_FOUND,) if _PLACEHOLDER.search(route.path) else ()
    codes += (Code.TOO_MANY_REQUESTS, Code.STORE_FULL) if route.starts_job else ()
    codes += () if route.is_available else (Code.NOT_AVAILABLE,)
    schema = {"schema": schemas.of(ErrorAnswer)}
    return {
        str(status): {"description": ", ".join(found), "content": {JSON: schema}}
        for status, found in by_status(codes).items()
    }
