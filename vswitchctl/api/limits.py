"""A limit to request bodies, so that a client cannot make the daemon hold any amount of memory."""

from __future__ import annotations

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_MAX = 32 * 2**20
"""Bytes. A document of 10,000 namespaces with their sources takes about 3 MiB."""


class BodyLimit:
    """ASGI middleware: reading more than `limit` bytes of a body ends in 413."""

    def __init__(self, app: ASGIApp, limit: int = BODY_MAX) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        taken = int(declared) if declared.isdigit() else 0
        received = 0

        async def limited() -> Message:
            nonlocal received
            if taken > self._limit:
                raise self._too_large()
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                raise self._too_large()
            return message

        await self._app(scope, limited, send)

    def _too_large(self) -> HTTPException:
        return HTTPException(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the request body is longer than {self._limit} bytes",
            {"Connection": "close"},
        )
