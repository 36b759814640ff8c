"""A model server for tests: scripted answers, raw bytes for malformed ones, and a record of what was asked.

A real HTTP server on loopback, for every test that needs a model behind it:

    async with ModelServer({"rules": [{"when": "hello", "text": "Hi!"}]}) as upstream:
        service = OpenAIService(upstream.settings())      # or configure upstream.base_url
        ...
        assert upstream.requests[0].body["messages"][-1]["content"] == "hello"

The script is the offline model's (docs/offline-model.md): a mapping, YAML text, or nothing for the shipped one. It
covers ordinary answers, tool calls, pacing and plain faults. What no script can say is queued as raw answers, which
are used up in order before the script is asked:

    upstream.enqueue(RawAnswer([text_frame("Hel"), b"data: {garbage"], then="reset"))

`received.disconnected` is set once the client has dropped that request's connection before its answer was sent.
"""

import asyncio
import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

import yaml
from aiohttp import web
from aiohttp.typedefs import Handler
from parley_server.llm.model_settings import ModelSettings
from parley_server.llm.offline.script import Script, load_script, parse_script
from parley_server.llm.offline.server import OfflineModelServer

DONE = b"data: [DONE]\n\n"


def frame(chunk: object) -> bytes:
    """One event with `chunk` as JSON."""
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def delta_frame(finish_reason: str | None = None, **delta: object) -> bytes:
    """One chunk with a delta: `delta_frame(content="x")`, `delta_frame(tool_calls=[...])`."""
    return frame({"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]})


def text_frame(text: str) -> bytes:
    """One chunk of text."""
    return delta_frame(content=text)


def finish_frame(reason: str = "stop") -> bytes:
    """The chunk that says why the model stopped."""
    return delta_frame(reason)


def usage_frame(**counts: object) -> bytes:
    """The chunk that carries the usage."""
    return frame({"choices": [], "usage": counts})


@dataclass(frozen=True)
class RawAnswer:
    """An answer byte for byte. `pause_s` lies before every read but the first; `then` is how it ends."""

    reads: Sequence[bytes] = ()
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "text/event-stream"})
    pause_s: float = 0.0
    then: Literal["end", "reset", "hang"] = "end"


@dataclass
class ReceivedRequest:
    """What a client asked, and from which address and port."""

    path: str
    peer: object
    headers: Mapping[str, str]  # names in any case
    body: Any  # the request's JSON: tests look into it as they please
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)


class ModelServer:
    """The server; see the module's text."""

    def __init__(self, script: Mapping[str, object] | str | None = None) -> None:
        self.requests: list[ReceivedRequest] = []
        self._answers: deque[RawAnswer] = deque()
        self._arrival = asyncio.Condition()
        self._server = OfflineModelServer(_script(script), middlewares=[self._record])

    @property
    def base_url(self) -> str:
        return self._server.base_url

    def settings(self, **overrides: object) -> ModelSettings:
        """Settings that point at this server."""
        return ModelSettings.model_validate(
            {"base_url": self.base_url, "api_key": "sk-test", "name": "offline", **overrides}
        )

    def enqueue(self, *answers: RawAnswer) -> None:
        """Answer the next requests like this."""
        self._answers.extend(answers)

    async def request(self, number: int = 1) -> ReceivedRequest:
        """Wait for the request of that number, counted from 1."""
        async with self._arrival:
            await self._arrival.wait_for(lambda: len(self.requests) >= number)
        return self.requests[number - 1]

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._server.__aexit__(kind, error, traceback)

    @web.middleware
    async def _record(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        body = json.loads(await request.read() or b"null")
        received = ReceivedRequest(request.path, request.get_extra_info("peername"), request.headers, body)
        async with self._arrival:
            self.requests.append(received)
            self._arrival.notify_all()
        try:
            if self._answers:
                return await _send(request, self._answers.popleft())
            return await handler(request)
        except (asyncio.CancelledError, ConnectionError):
            received.disconnected.set()
            raise


async def _send(request: web.Request, answer: RawAnswer) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    await response.prepare(request)
    for number, read in enumerate(answer.reads):
        if number:
            await asyncio.sleep(answer.pause_s)
        await response.write(read)
    if answer.then == "hang":
        await asyncio.Event().wait()
    if answer.then == "reset" and request.transport is not None:
        request.transport.abort()
    return response


def _script(script: Mapping[str, object] | str | None) -> Script:
    if script is None:
        return load_script()
    return parse_script(script if isinstance(script, str) else yaml.safe_dump(dict(script)), "test script")
