"""The HTTP front's application: its routes, and what every request passes on its way."""

import logging
from collections.abc import Awaitable, Callable
from functools import partial

import grpc
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import metrics
from gateway.call import REQUEST_ID, valid_id
from gateway.connections import close_connection, in_use
from gateway.errors import StatusError, forget_frames
from gateway.http import api, docs, openai_embeddings, openapi, statuses
from gateway.http.calls import PASSED_ON, TIMEOUT_HEADER, Calls, path_of
from gateway.http.door import Door
from gateway.http.error_answers import OTHER, WriteError, refuse, tell
from gateway.http.exchange import Answer, DisconnectedError, Exchange, Limits, Room, peer_of
from gateway.http.inference_sdk import errors as sdk_errors
from gateway.http.inference_sdk import routes as sdk_routes
from gateway.http.playground_files import playground_routes
from gateway.http.statuses import CallError, HttpError
from gateway.message_structure import MAX_STRUCTURE_BYTES
from gateway.services.registry import SERVICES
from gateway.settings import Settings
from gateway.trusted_proxies import TrustedProxies
from visiongate.affinity import IMAGE_ID

logger = logging.getLogger(__name__)

Handler = Callable[[Exchange], Awaitable[Answer]]
"""Answers a request. Raises StatusError for what it refuses itself, CallError for what the gateway did."""
_PREFLIGHT_S = 600
_CONNECTION = "visiongate.connection"
"""In a scope whose `client` is not the other end of the connection: gRPC's name for that."""


class Endpoint:
    """An ASGI application of one route.

    name: what the log and the metrics call requests that the front itself refuses.
    """

    def __init__(
        self,
        handler: Handler,
        limits: Limits,
        room: Room,
        name: str = OTHER,
        write_error: WriteError = statuses.to_json,
    ) -> None:
        self._handler = handler
        self._limits = limits
        self._room = room
        self._name = name
        self._write_error = write_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = scope.get(_CONNECTION) or peer_of(scope)
        with in_use(connection), self._room.share_of((scope["client"] or ("",))[0]) as share:
            exchange = Exchange(scope, receive, send, self._limits, share)
            try:
                answer = await self._answer(exchange)
            except DisconnectedError:
                return
            try:
                await exchange.send(answer)
            except TimeoutError:
                if close_connection(connection, "answer"):
                    logger.warning(
                        "request %s: %s has not taken the answer of %s within %g seconds: "
                        "its connection is closed",
                        *(exchange.request_id, connection, scope["path"], self._limits.max_send_s),
                    )

    async def _answer(self, exchange: Exchange) -> Answer:
        try:
            return await self._handler(exchange)
        except CallError as error:
            forget_frames(error)
            return tell(error.status, self._write_error)
        except DisconnectedError:
            raise
        except Exception as error:
            if not isinstance(error, StatusError):
                # The text may name paths or other callers' data: it goes to the log alone.
                logger.exception("%s failed", exchange.scope["path"])
            who = exchange.request_id, exchange.peer, exchange.headers
            return refuse(error, *who, self._name, self._write_error)


def application(settings: Settings, calls: Calls) -> ASGIApp:
    """Return the application."""
    limits = Limits(
        # As base64.
        settings.max_message_bytes * 4 // 3 + MAX_STRUCTURE_BYTES,
        settings.max_message_bytes,
        settings.max_receive_s,
        settings.max_send_s,
    )
    room = Room(settings.max_bytes_in_flight // 2, settings.max_caller_share)
    routes = [
        Route(
            operation.path,
            Endpoint(partial(api.answer, operation, calls), limits, room, path_of(operation.method)),
            methods=[operation.http_method],
        )
        for operation in api.operations(service.file for service in SERVICES)
    ]
    embeddings = partial(openai_embeddings.answer, calls)
    routes.append(
        Route(
            "/v1/embeddings",
            Endpoint(embeddings, limits, room, write_error=openai_embeddings.write_error),
            methods=["POST"],
        )
    )
    if settings.inference_sdk_routes:
        routes += [
            Route(path, Endpoint(handler, limits, room, write_error=sdk_errors.to_json), methods=methods)
            for methods, path, handler in sdk_routes.handlers(calls)
        ]
    routes += [
        Route("/livez", Endpoint(_live, limits, room), methods=["GET"]),
        Route("/readyz", Endpoint(partial(_ready, calls), limits, room), methods=["GET"]),
        *playground_routes(),
        Route("/openapi.json", Endpoint(openapi.answer, limits, room), methods=["GET"]),
        Route("/docs", Endpoint(docs.answer, limits, room), methods=["GET"]),
    ]
    middleware = [
        Middleware(_Forwarding, proxies=TrustedProxies(settings.trusted_proxies)),
        Middleware(_DoorKeeper, door=Door(settings.http_hosts, settings.http_origins)),
    ]
    if settings.http_origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=[origin.lower().rstrip("/") for origin in settings.http_origins],
                allow_methods=["GET", "POST"],
                allow_headers=["content-type", REQUEST_ID, IMAGE_ID, TIMEOUT_HEADER, *PASSED_ON],
                expose_headers=[REQUEST_ID, "retry-after"],
                max_age=_PREFLIGHT_S,
            )
        )
    app = Starlette(
        routes=routes, middleware=middleware, exception_handlers={HTTPException: _tell_wrong_route}
    )
    app.router.redirect_slashes = False
    return app


async def _live(exchange: Exchange) -> Answer:
    return Answer([b"alive\n"], "text/plain")


async def _ready(calls: Calls, exchange: Exchange) -> Answer:
    is_ready = await calls.is_ready()
    return Answer([b"ready\n" if is_ready else b"not ready\n"], "text/plain", 200 if is_ready else 503)


class _Forwarding:
    """Puts the caller into the place of a trusted proxy: all inside takes it for the client."""

    def __init__(self, app: ASGIApp, proxies: TrustedProxies) -> None:
        self._app = app
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host, port = scope["client"] or ("", 0)
        caller = self._proxies.caller(host, Headers(scope=scope))
        if caller != host:
            scope = {**scope, "client": (caller, port), _CONNECTION: peer_of(scope)}
        await self._app(scope, receive, send)


class _DoorKeeper:
    """Turns away those whom the door does not let in."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._door.check(Headers(scope=scope))
        except HttpError as error:
            await _response(scope, error)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


async def _tell_wrong_route(request: Request, exception: Exception) -> Response:
    assert isinstance(exception, HTTPException)
    if exception.status_code == 405:
        allowed = ", ".join(sorted((exception.headers or {}).get("Allow", "").split(", ")))
        error = HttpError(
            405,
            grpc.StatusCode.UNIMPLEMENTED,
            f"this path takes {allowed}",
            reason="WRONG_METHOD",
            headers={"allow": allowed},
        )
    else:
        error = HttpError(
            404,
            grpc.StatusCode.NOT_FOUND,
            "there is nothing at this path; /openapi.json says what there is",
            reason="NO_SUCH_PATH",
        )
    return _response(request.scope, error)


def _response(scope: Scope, error: HttpError) -> Response:
    headers = Headers(scope=scope)
    request_id = valid_id(headers.get(REQUEST_ID, ""))
    answer = refuse(error, request_id, peer_of(scope), headers)
    metrics.HTTP_ANSWERS.labels(str(answer.status)).inc()
    own = {REQUEST_ID: request_id, **answer.headers}
    return Response(b"".join(answer.pieces), answer.status, own, answer.media_type)
