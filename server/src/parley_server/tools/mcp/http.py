"""MCP by streamable HTTP, with bodies of a bounded size and statuses that can be told apart."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import httpx2
from mcp.client._transport import TransportStreams
from mcp.client.streamable_http import streamable_http_client

MAX_MESSAGE_BYTES = 8 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
# JSON-RPC errors that stand for an HTTP status, which the library does not tell: the status is what is added.
STATUS_BASE = -31_000
# As if it were a status: the request has not left this machine.
NOT_SENT = 599
_TIMEOUT_S = 30.0
_PLAIN = "identity"


@asynccontextmanager
async def http_transport(url: str, headers: Mapping[str, str]) -> AsyncIterator[TransportStreams]:
    """Speak to the server at a URL; nothing is sent before the first message."""
    # A call's own time-out ends the wait for an answer.
    timeout = httpx2.Timeout(_TIMEOUT_S, read=None)
    async with (
        _Client(
            headers={**headers, "accept-encoding": _PLAIN}, timeout=timeout, event_hooks={"response": [_bound]}
        ) as client,
        streamable_http_client(url, http_client=client, max_sse_event_size=MAX_MESSAGE_BYTES) as streams,
    ):
        yield streams


class _Client(httpx2.AsyncClient):
    """Says which requests were not sent, where the library would only lose the connection."""

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:  # noqa: ANN401  # handed on
        """Send a request; one that does not reach the server is answered NOT_SENT."""
        try:
            return await super().send(request, **options)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout):
            headers = {"content-type": "application/json"}
            return httpx2.Response(NOT_SENT, headers=headers, content=_error(NOT_SENT), request=request)


async def _bound(response: httpx2.Response) -> None:
    """Let no more of an answer be read than it may have, and an error that is no JSON-RPC be read as one."""
    body = _body_of(response)
    if response.headers.get("content-encoding", _PLAIN).lower() != _PLAIN:
        # What is packed may be of any size. It is an answer, so that something may have happened.
        await body.aclose()
        response.status_code = HTTPStatus.BAD_GATEWAY
        _replace(response, _error(response.status_code))
    elif response.is_error:
        _replace(response, await _error_in(body) or _error(min(response.status_code, NOT_SENT - 1)))
    elif not response.headers.get("content-type", "").lower().startswith("text/event-stream"):
        response.stream = _Bounded(body, MAX_MESSAGE_BYTES)


def _body_of(response: httpx2.Response) -> httpx2.AsyncByteStream:
    if not isinstance(response.stream, httpx2.AsyncByteStream):
        raise TypeError("an answer to an asynchronous client")
    return response.stream


def _replace(response: httpx2.Response, content: bytes) -> None:
    response.headers = httpx2.Headers({"content-type": "application/json"})
    response.stream = httpx2.ByteStream(content)


async def _error_in(body: httpx2.AsyncByteStream) -> bytes:
    """Read the body of an error; empty where it is no JSON-RPC."""
    bounded = _Bounded(body, MAX_ERROR_BYTES)
    try:
        content = b"".join([chunk async for chunk in bounded])
        parsed: object = json.loads(content)
    except (httpx2.StreamError, ValueError, RecursionError):
        return b""
    finally:
        await bounded.aclose()
    return content if isinstance(parsed, dict) and "jsonrpc" in parsed else b""


def _error(status: int) -> bytes:
    error = {"code": STATUS_BASE - status, "message": f"HTTP status {status}"}
    return json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode()


class _TooLongError(httpx2.StreamError):
    """A body is longer than it may be."""

    def __init__(self) -> None:
        super().__init__("the body is too long")


class _Bounded(httpx2.AsyncByteStream):
    """A body that breaks off where it gets too long."""

    def __init__(self, stream: httpx2.AsyncByteStream, max_bytes: int) -> None:
        self._stream = stream
        self._left = max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self._left -= len(chunk)
            if self._left < 0:
                raise _TooLongError
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
