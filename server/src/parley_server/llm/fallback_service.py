"""A ModelService that asks another model when the chosen one is not available."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

import structlog

from parley_server.domain.context import RequestContext
from parley_server.domain.quota_errors import QuotaExceededError
from parley_server.llm.first_chunk import first_chunk
from parley_server.llm.model_errors import NotTakenError
from parley_server.llm.model_service import FallbackChunk, ModelChunk, ModelError, ModelRequest, ModelService, Remedy

_log = structlog.get_logger(__name__)


class FallbackService:
    """Asks the models of `fallbacks` in turn, of the same service, as long as none has begun to answer.

    That a conversation is too long, or that a request or a key is refused, is told as it is, whichever model says so.
    A fall-back that is known not to take what was asked of another is passed over, and so is one whose limits leave no
    room.
    When none is available, the chosen one's error is raised.
    """

    def __init__(self, inner: ModelService, fallbacks: Sequence[str]) -> None:
        self._inner = inner
        self._fallbacks = tuple(fallbacks)

    async def stream(self, context: RequestContext, request: ModelRequest) -> AsyncGenerator[ModelChunk]:
        """Ask; see `ModelService.stream`. A FallbackChunk comes first when another model answers."""
        failure: ModelError | None = None
        for model in dict.fromkeys((request.model, *self._fallbacks)):
            if failure is not None and not await _is_permitted(request, model):
                continue
            chunks = self._inner.stream(context, replace(request, model=model))
            try:
                first = await first_chunk(chunks)
            except ModelError as error:
                is_passed_over = failure is not None and isinstance(error, NotTakenError)
                if error.remedy is Remedy.NONE and not is_passed_over:
                    raise
                failure = failure or error
                continue
            async with aclosing(chunks):
                if failure is not None:
                    _log.warning(
                        "model_fell_back",
                        request_id=context.request_id,
                        model=model,
                        asked_model=request.model,
                        reason=failure.reason,
                    )
                    yield FallbackChunk(model, request.model)
                yield first
                async for chunk in chunks:
                    yield chunk
            return
        if failure is not None:
            raise failure

    async def aclose(self) -> None:
        """Close the service behind it."""
        await self._inner.aclose()


async def _is_permitted(request: ModelRequest, model: str) -> bool:
    try:
        await request.permit(model)
    except QuotaExceededError:
        return False
    return True
