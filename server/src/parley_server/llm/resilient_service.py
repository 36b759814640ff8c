"""A ModelService that asks again what failed by accident, and leaves a model alone that mostly fails."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from dataclasses import dataclass

import structlog

from parley_server.breaker import Breaker, BreakerState
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import Reason
from parley_server.llm.first_chunk import first_chunk
from parley_server.llm.model_errors import BreakerOpenError, NotTakenError
from parley_server.llm.model_service import ModelChunk, ModelError, ModelRequest, ModelService
from parley_server.llm.retry import RetryBudget, RetryPolicy
from parley_server.metrics.recorder import SILENT, ModelRecorder, Recorder

MAX_MODELS = 256
OTHER_MODELS = "other"

_SERVER_FAULTS = frozenset(
    {
        Reason.MODEL_UNAVAILABLE,
        Reason.MODEL_TIMEOUT,
        Reason.MODEL_STREAM_INCOMPLETE,
        Reason.MODEL_RESPONSE_INVALID,
    }
)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Line:
    """What is known of one model: of all its callers, and nothing of any of them."""

    breaker: Breaker
    recorder: ModelRecorder


class ResilientService:
    """Calls one provider's models through `inner`, which makes every call once.

    Each model has a breaker, all share one retry budget. `known_models` are counted by their names, what users ask for
    besides as OTHER_MODELS. Breakers of MAX_MODELS are kept; the one that was not asked for longest begins anew.
    """

    def __init__(
        self,
        inner: ModelService,
        provider: str,
        policy: RetryPolicy,
        known_models: Collection[str] = (),
        recorder: Recorder = SILENT,
    ) -> None:
        self._inner = inner
        self._provider = provider
        self._policy = policy
        self._recorder = recorder
        self._budget = RetryBudget()
        self._lines: OrderedDict[str, _Line] = OrderedDict()
        self._known = {model: recorder.model(provider, model) for model in known_models}
        self._other = recorder.model(provider, OTHER_MODELS)
        for known in self._known.values():
            known.breaker(BreakerState.CLOSED)

    async def stream(self, context: RequestContext, request: ModelRequest) -> AsyncGenerator[ModelChunk]:
        """Ask; see `ModelService.stream`. Raises BreakerOpenError at once while the model is left alone."""
        line = self._line(request.model)
        outcome = "cancelled"
        try:
            first, chunks = await self._begin(context, request, line)
            async with aclosing(chunks):
                yield first
                async for chunk in chunks:
                    yield chunk
            outcome = "ok"
        except ModelError as error:
            outcome = "breaker_open" if isinstance(error, BreakerOpenError) else error.reason.lower()
            raise
        finally:
            line.recorder.ended(outcome)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()

    async def _begin(
        self, context: RequestContext, request: ModelRequest, line: _Line
    ) -> tuple[ModelChunk, AsyncGenerator[ModelChunk]]:
        """Ask until an answer begins; return its first chunk and the others. Raises ModelError."""
        retries = 0
        while True:
            chunks = self._inner.stream(context, request)
            try:
                return await self._first(chunks, line), chunks
            except ModelError as error:
                delay_s = self._policy.delay_s(error, request, retries)
                if delay_s is None or not self._budget.spend():
                    raise
                log = _log.bind(request_id=context.request_id, provider=self._provider, model=request.model)
                log.info("model_call_repeated", reason=error.reason, delay_s=round(delay_s, 3))
            retries += 1
            line.recorder.retried()
            await asyncio.sleep(delay_s)

    async def _first(self, chunks: AsyncGenerator[ModelChunk], line: _Line) -> ModelChunk:
        """Wait for an answer's first chunk, if the breaker lets the call through, and tell the breaker of it."""
        admitted = line.breaker.admit()
        if admitted is None:
            raise BreakerOpenError(line.breaker.retry_after_s)
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            first = await first_chunk(chunks)
        except ModelError as error:
            if error.reason in _SERVER_FAULTS:
                line.breaker.failed(admitted)
            elif not isinstance(error, NotTakenError):
                line.breaker.reached(admitted)
            raise
        line.breaker.succeeded(admitted)
        self._budget.earn()
        line.recorder.first_event(loop.time() - started)
        return first

    def _line(self, model: str) -> _Line:
        line = self._lines.get(model)
        if line is None:
            line = self._lines[model] = _Line(
                Breaker(lambda state: self._note(model, state)), self._known.get(model, self._other)
            )
            if len(self._lines) > MAX_MODELS:
                self._lines.popitem(last=False)
        self._lines.move_to_end(model)
        return line

    def _note(self, model: str, state: BreakerState) -> None:
        log = _log.warning if state is BreakerState.OPEN else _log.info
        log("model_breaker_changed", provider=self._provider, model=model, state=state.name.lower())
        if model in self._known:
            self._known[model].breaker(state)
