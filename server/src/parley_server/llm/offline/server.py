"""The offline model's HTTP server: OpenAI's chat completions, answered from a script. It is no model."""

import asyncio
import itertools
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from aiohttp import web
from aiohttp.typedefs import Middleware
from pydantic import ValidationError

from parley_server.llm.offline.actor import act
from parley_server.llm.offline.chat_answer import ChatAnswer
from parley_server.llm.offline.script import Fault, Rule, Script
from parley_server.llm.offline.situation import ChatRequest, situation_of

OFFLINE_MODEL_NAME = "offline"
MAX_REQUEST_BYTES = 64 * 1024 * 1024

_SHUTDOWN_TIMEOUT_S = 0.1
_MODEL = {"id": OFFLINE_MODEL_NAME, "object": "model", "created": 0, "owned_by": "parley"}


class OfflineModelServer:
    """Serves a script: `async with OfflineModelServer(script) as server`, then ask `server.base_url`.

    Port 0 takes a free one. Leaving cuts the answers that are under way. `middlewares` see every request first.
    """

    def __init__(
        self, script: Script, host: str = "127.0.0.1", port: int = 0, middlewares: Sequence[Middleware] = ()
    ) -> None:
        self._script = script
        self._host = host
        self._port = port
        app = web.Application(middlewares=middlewares, client_max_size=MAX_REQUEST_BYTES)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_get("/v1/models", _list_models)
        app.router.add_get(f"/v1/models/{OFFLINE_MODEL_NAME}", _get_model)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=_SHUTDOWN_TIMEOUT_S
        )

    @property
    def base_url(self) -> str:
        """The address for `[model] base_url`."""
        port = self._runner.addresses[0][1]
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{port}/v1"

    async def __aenter__(self) -> Self:
        """Start to listen. Raises OSError when the address cannot be had."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError:
            await self._runner.cleanup()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _complete(self, http: web.Request) -> web.StreamResponse:
        try:
            request = ChatRequest.model_validate_json(await http.read())
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            return _error(400, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
        answer = act(self._script, situation_of(request))
        rule, chat_answer = answer.rule, ChatAnswer(request, answer)
        if rule.fault.status is not None:
            return _refusal(rule.fault)
        if not request.stream:
            return await _send_whole(http, chat_answer, rule)
        with_usage = request.stream_options is not None and request.stream_options.include_usage
        return await _stream(http, chat_answer, rule, with_usage=with_usage)


async def _send_whole(http: web.Request, answer: ChatAnswer, rule: Rule) -> web.Response:
    fault = rule.fault
    await asyncio.sleep(rule.first_delay_ms / 1000 + fault.stall_s)
    if fault.cut_after_chunks is not None:
        _cut(http)
    if fault.garbage:
        return web.Response(text=fault.garbage, content_type="application/json")
    return web.json_response(answer.whole())


async def _stream(http: web.Request, answer: ChatAnswer, rule: Rule, *, with_usage: bool) -> web.StreamResponse:
    fault = rule.fault
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(http)
    await asyncio.sleep(rule.first_delay_ms / 1000)
    if fault.garbage:
        await response.write(fault.garbage.encode())
        return response
    await response.write(answer.opening())
    frames = list(itertools.islice(answer.chunks(), fault.cut_after_chunks))
    if fault.cut_after_chunks is None:
        frames.append(answer.ending(with_usage=with_usage))
    for number, frame in enumerate(frames):
        if number:
            await asyncio.sleep(rule.chunk_delay_ms / 1000 + (fault.stall_s if number == 1 else 0))
        await response.write(frame)
    if fault.cut_after_chunks is not None:
        _cut(http)
    return response


def _cut(http: web.Request) -> None:
    """Drop the connection; what is written to it after that goes nowhere."""
    if http.transport is not None:
        http.transport.abort()


def _refusal(fault: Fault) -> web.Response:
    response = _error(fault.status or 500, "The script refuses this request.")
    if fault.retry_after_s is not None:
        response.headers["Retry-After"] = str(fault.retry_after_s)
    return response


def _error(status: int, message: str) -> web.Response:
    error = {"message": message, "type": "offline_model_error", "param": None, "code": None}
    return web.json_response({"error": error}, status=status)


async def _list_models(_: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [_MODEL]})


async def _get_model(_: web.Request) -> web.Response:
    return web.json_response(_MODEL)
