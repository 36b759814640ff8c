"""Calls of an OpenAIService against a model server, for the tests of both."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime

import pytest
from model_server import DONE, ModelServer, finish_frame, text_frame, usage_frame
from parley_server.domain.content import TextPart
from parley_server.domain.context import RequestContext
from parley_server.domain.principal import Principal, PrincipalKind
from parley_server.llm.model_service import (
    ModelChunk,
    ModelError,
    ModelRequest,
    ModelService,
    UserMessage,
)
from parley_server.llm.openai_service import OpenAIService

CONTEXT = RequestContext(
    user_id="ann",
    principal=Principal(kind=PrincipalKind.USER, subject="ann", method="test"),
    request_id="req_1",
    timestamp=datetime.now(UTC),
)
HELLO = ModelRequest("offline", (UserMessage((TextPart("hello"),)),))
WHOLE = text_frame("Hi") + finish_frame() + usage_frame(prompt_tokens=3, completion_tokens=1) + DONE


@asynccontextmanager
async def service_at(upstream: ModelServer, **settings: object) -> AsyncIterator[ModelService]:
    service: ModelService = OpenAIService(upstream.settings(**settings))
    try:
        yield service
    finally:
        await service.aclose()


async def ask(upstream: ModelServer, request: ModelRequest = HELLO, **settings: object) -> list[ModelChunk]:
    async with service_at(upstream, **settings) as service, aclosing(service.stream(CONTEXT, request)) as chunks:
        return [chunk async for chunk in chunks]


async def failure(upstream: ModelServer, **settings: object) -> ModelError:
    with pytest.raises(ModelError) as raised:
        await ask(upstream, HELLO, **settings)
    return raised.value
