"""The ModelService for every server that speaks OpenAI's chat completions."""

import asyncio
import gc
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING

import structlog

from parley_server.domain.context import RequestContext
from parley_server.llm.chunk_builder import ChunkBuilder
from parley_server.llm.model_errors import ModelStatusError, UnverifiedServerError
from parley_server.llm.model_service import ModelChunk, ModelError, ModelRequest, Remedy
from parley_server.llm.model_settings import ModelServerSettings
from parley_server.llm.opening import Opening
from parley_server.llm.pace import Pace, StreamPace
from parley_server.llm.patience import Patience
from parley_server.llm.provider_profiles import profile_of
from parley_server.llm.request_body import encode_request
from parley_server.llm.sse import SseSplitter

if TYPE_CHECKING:
    from parley_server.llm.upstream import Upstream, UpstreamAnswer

# Seconds that a complete answer waits for its usage, and a finished one for the end of the body.
_USAGE_TIMEOUT_S = 5.0
_END_OF_BODY_TIMEOUT_S = 0.1

_log = structlog.get_logger(__name__)


class OpenAIService:
    """Asks one server. Construct it inside a running event loop.

    A thread imports the SDK and builds its client meanwhile, so that the server's start need not wait for that; the
    first call waits for what is left of it.
    """

    def __init__(self, settings: ModelServerSettings) -> None:
        self._gap_timeout_s = settings.gap_timeout_s
        self._first_event_timeout_s = settings.first_event_timeout_s
        self._total_timeout_s = settings.total_timeout_s
        self._base_url = settings.base_url
        self._profile_settings = settings.profile
        self._pace = Pace()
        self._upstream = Opening(partial(_open_upstream, settings))

    async def stream(self, context: RequestContext, request: ModelRequest) -> AsyncGenerator[ModelChunk]:
        """Ask, and yield chunks as they arrive; what is promised is written at ModelService."""
        body = encode_request(request, profile_of(self._base_url, request.model, self._profile_settings))
        api_key = None if request.credential is None else request.credential.api_key
        patience = Patience(self._first_event_timeout_s, self._total_timeout_s)
        log = _log.bind(request_id=context.request_id, model=request.model)
        try:
            upstream = await self._upstream.result()
            answer = await patience.wait(upstream.post(body, api_key))
            log = log.bind(upstream_request_id=answer.upstream_request_id)
            async with aclosing(answer), aclosing(self._chunks(answer, patience)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except ModelStatusError as error:
            log.warning(
                "model_call_refused",
                reason=error.reason,
                http_status=error.http_status,
                upstream_request_id=error.upstream_request_id,
            )
            raise
        except UnverifiedServerError as error:
            log.error("model_call_failed", reason=error.reason, hint=error.hint)  # noqa: TRY400  # the hint says it all
            raise
        except ModelError as error:
            if patience.is_renewed:
                error.remedy = Remedy.NONE
            log.warning("model_call_failed", reason=error.reason)
            raise
        finally:
            patience.close()

    async def aclose(self) -> None:
        """Close the connections."""
        if upstream := await self._upstream.settled():
            await upstream.aclose()

    async def _chunks(self, answer: "UpstreamAnswer", patience: Patience) -> AsyncGenerator[ModelChunk]:
        splitter, builder = SseSplitter(), ChunkBuilder()
        ended = False
        with StreamPace(self._pace) as pace:
            while not (ended or builder.is_over):
                read = await _read(answer, patience, builder)
                ended = not read
                events = splitter.finish() if ended else splitter.feed(read)
                for chunk in builder.feed(events):
                    yield chunk
                # Some servers keep a connection alive by events that say nothing.
                if any(event.payload.strip() for event in events):
                    usage_timeout_s = min(_USAGE_TIMEOUT_S, self._gap_timeout_s)
                    patience.renew(usage_timeout_s if builder.has_finish_reason else self._gap_timeout_s)
                if not (ended or builder.has_finish_reason):
                    await pace.rest()
        yield builder.finish()
        if not ended:
            await _drain(answer)


def _open_upstream(settings: ModelServerSettings) -> "Upstream":
    is_first = "openai" not in sys.modules
    from parley_server.llm.upstream import Upstream  # noqa: PLC0415 - importing openai takes most of a second

    if is_first:
        # A full collection would look through the SDK's many objects again and again, while every stream waits.
        gc.freeze()
    return Upstream(settings)


async def _read(answer: "UpstreamAnswer", patience: Patience, builder: ChunkBuilder) -> bytes:
    try:
        return await patience.wait(answer.read())
    except ModelError:
        # Only the usage is missing: a whole answer is not thrown away for it.
        if builder.has_finish_reason:
            return b""
        raise


async def _drain(answer: "UpstreamAnswer") -> None:
    """Read what follows the last event, mostly nothing: only a body read to its end leaves the connection usable."""
    with suppress(TimeoutError, ModelError):
        async with asyncio.timeout(_END_OF_BODY_TIMEOUT_S):
            while await answer.read():
                pass
