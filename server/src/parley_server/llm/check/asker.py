"""Asks a model server and keeps of an answer what it shows of the server."""

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp

from parley_server.domain.tool import ToolCall
from parley_server.llm.check.questions import JsonObject
from parley_server.llm.chunk_builder import ChunkBuilder
from parley_server.llm.model_service import FinishReason, ModelError, ReasoningChunk, TextChunk
from parley_server.llm.model_settings import ModelServerSettings
from parley_server.llm.sse import SseSplitter

MAX_ANSWER_BYTES = 4 * 1024 * 1024
_KEY_REFUSED = frozenset({401, 403})
_REQUEST_REFUSED = frozenset({400, 404, 405, 415, 422, 500, 501})


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a question. `status` is 0 when nobody answered, and `problem` says what was wrong, in our words."""

    status: int
    problem: str = ""
    text: str = ""
    reasoning: str = ""
    reasoning_field: str = ""
    calls: tuple[ToolCall, ...] = ()
    finish: FinishReason | None = None
    has_usage: bool = False

    @property
    def is_good(self) -> bool:
        """Whether the server took the question and gave a whole answer."""
        return self.finish is not None

    @property
    def is_refused(self) -> bool:
        """Whether the server says that it does not take the question; some say so by a fault of their own."""
        return self.status in _REQUEST_REFUSED

    @property
    def is_key_refused(self) -> bool:
        """Whether the server does not take the key."""
        return self.status in _KEY_REFUSED


class Asker:
    """One server, asked one thing after the other, each for at most `timeout_s` seconds."""

    def __init__(self, settings: ModelServerSettings, timeout_s: float) -> None:
        self._base_url = settings.base_url
        self._timeout_s = timeout_s
        key = settings.api_key.get_secret_value()
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.asked = 0

    async def __aenter__(self) -> Self:
        # As in service: no redirect takes the key elsewhere, no compression holds events back.
        self._session = aiohttp.ClientSession(headers={**self._headers, "Accept-Encoding": "identity"}, trust_env=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session.close()

    async def models(self) -> tuple[int, list[JsonObject]]:
        """Return the status of the list of models, and its entries."""
        status, body = await self._exchange("GET", "/models", None)
        with suppress(ValueError, AttributeError):
            entries = json.loads(body).get("data", [])
            return status, [entry for entry in entries if isinstance(entry, dict)]
        return status, []

    async def ask(self, body: JsonObject) -> Answer:
        """Ask a question."""
        status, answer = await self._exchange("POST", "/chat/completions", body)
        if status != 200:
            return Answer(status, f"HTTP {status}" if status else "no answer")
        return _read(answer)

    async def _exchange(self, method: str, path: str, body: JsonObject | None) -> tuple[int, bytes]:
        self.asked += 1
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._session.request(method, self._base_url + path, json=body, allow_redirects=False) as response,
            ):
                return response.status, await _body(response)
        except (aiohttp.ClientError, OSError, TimeoutError):
            return 0, b""


async def _body(response: aiohttp.ClientResponse) -> bytes:
    read = bytearray()
    async for part in response.content.iter_any():
        read += part
        if len(read) > MAX_ANSWER_BYTES:
            break
    return bytes(read)


def _read(answer: bytes) -> Answer:
    splitter, builder = SseSplitter(), ChunkBuilder()
    chunks = builder.feed([*splitter.feed(answer), *splitter.finish()])
    try:
        finish = builder.finish()
    except ModelError as error:
        return Answer(200, error.message)
    reasoning = "".join(chunk.text for chunk in chunks if isinstance(chunk, ReasoningChunk))
    return Answer(
        200,
        text="".join(chunk.text for chunk in chunks if isinstance(chunk, TextChunk)),
        reasoning=reasoning,
        reasoning_field=_reasoning_field(answer) if reasoning else "",
        calls=finish.tool_calls,
        finish=finish.reason,
        has_usage=finish.is_usage_known,
    )


def _reasoning_field(answer: bytes) -> str:
    return "reasoning_content" if b'"reasoning_content"' in answer else "reasoning"
