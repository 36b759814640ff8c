"""An HTTP server that answers with the corpus: the model's name says which case, and how its body is cut.

`crlf` is the case in one chunk, `crlf@7` in chunks of 7 bytes, `crlf!90` its first 90 bytes and then the end. Whoever
has been given a tool's result is answered FINAL, so that an agent's run comes to its end.
"""

import asyncio
import json
import socket
import struct
from types import TracebackType
from typing import Self

from aiohttp import web
from model_server import DONE, finish_frame, text_frame
from streams.corpus import Case, case_named

FINAL = "That is all."

# Let the client read what was sent before the connection is reset.
_BEFORE_RESET_S = 0.1
_RESET = struct.pack("ii", 1, 0)


class CaseServer:
    """`async with CaseServer() as server`, then ask `server.base_url`."""

    def __init__(self) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", _answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._runner.cleanup()


async def _answer(request: web.Request) -> web.StreamResponse:
    asked = json.loads(await request.read())
    if asked["messages"][-1]["role"] == "tool":
        body = text_frame(FINAL) + finish_frame() + DONE
        return web.Response(body=body, content_type="text/event-stream")
    name, _, size = str(asked["model"]).partition("@")
    name, _, end = name.partition("!")
    case = case_named(name)
    body = case.body[: int(end)] if end else case.body
    return await _send(request, case, body, int(size or len(body) or 1))


async def _send(request: web.Request, case: Case, body: bytes, size: int) -> web.StreamResponse:
    headers = {"Content-Type": case.response.content_type, **case.response.headers}
    response = web.StreamResponse(status=case.response.status, headers=headers)
    await response.prepare(request)
    try:
        for start in range(0, len(body), size):
            await response.write(body[start : start + size])
            await asyncio.sleep(0)
        if case.response.end == "reset":
            await asyncio.sleep(_BEFORE_RESET_S)
            _reset(request)
    except ConnectionError:
        # The client had read enough.
        return response
    return response


def _reset(request: web.Request) -> None:
    """Close the connection with RST."""
    assert request.transport is not None
    connection: socket.socket = request.transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    request.transport.abort()
