"""FallbackService in front of a real server: who is asked in which order, and what is never hidden."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import pytest
from model_server import DONE, ModelServer, RawAnswer, finish_frame, text_frame
from parley_server.domain.errors import Reason
from parley_server.domain.run import ModelOptions
from parley_server.llm.fallback_service import FallbackService
from parley_server.llm.model_errors import NotTakenError
from parley_server.llm.model_service import (
    FallbackChunk,
    FinishChunk,
    FinishReason,
    ModelChunk,
    ModelError,
    ModelService,
    TextChunk,
)
from parley_server.llm.openai_service import OpenAIService
from unit.llm.service_calls import CONTEXT, HELLO, WHOLE

OK = RawAnswer([WHOLE])
DOWN = RawAnswer([b"{}"], 503)


@pytest.fixture
async def service(upstream: ModelServer) -> AsyncIterator[ModelService]:
    # One test waits as long; the others must not take a loaded machine for a silent server.
    service = FallbackService(OpenAIService(upstream.settings(first_event_timeout_s=1.5)), ["second", "third"])
    yield service
    await service.aclose()


async def ask(service: ModelService) -> list[ModelChunk]:
    async with aclosing(service.stream(CONTEXT, HELLO)) as chunks:
        return [chunk async for chunk in chunks]


def asked(upstream: ModelServer) -> list[str]:
    return [request.body["model"] for request in upstream.requests]


async def test_a_model_that_answers_is_the_only_one_asked(upstream: ModelServer, service: ModelService) -> None:
    upstream.enqueue(OK)
    assert (await ask(service))[0] == TextChunk("Hi")
    assert asked(upstream) == ["offline"]


@pytest.mark.parametrize(
    "answer",
    [
        DOWN,
        RawAnswer([b"{}"], 429, {"Retry-After": "20"}),
        RawAnswer([], then="reset"),
        RawAnswer([], then="hang"),
    ],
)
async def test_the_next_one_answers_and_says_so(
    upstream: ModelServer, service: ModelService, answer: RawAnswer
) -> None:
    upstream.enqueue(answer, DOWN, OK)
    chunks = await ask(service)
    assert chunks[:2] == [FallbackChunk("third", "offline"), TextChunk("Hi")]
    assert isinstance(chunks[-1], FinishChunk)
    assert asked(upstream) == ["offline", "second", "third"]
    assert upstream.requests[0].body["messages"] == upstream.requests[2].body["messages"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (RawAnswer([b"{}"], 400), Reason.MODEL_REQUEST_REJECTED),
        (RawAnswer([b"{}"], 401), Reason.MODEL_AUTHENTICATION_FAILED),
        (RawAnswer([b"{}"], 404), Reason.MODEL_REQUEST_REJECTED),
        (RawAnswer([b"{}"], 413), Reason.MODEL_CONTEXT_TOO_LONG),
        (RawAnswer([b'{"code": "context_length_exceeded"}'], 400), Reason.MODEL_CONTEXT_TOO_LONG),
        (RawAnswer([text_frame("Hi")], then="reset"), Reason.MODEL_STREAM_INCOMPLETE),
    ],
)
@pytest.mark.parametrize("before", [0, 1])
async def test_what_is_told_as_it_is_whichever_model_says_so(
    upstream: ModelServer, service: ModelService, answer: RawAnswer, reason: Reason, before: int
) -> None:
    upstream.enqueue(*[DOWN] * before, answer)
    with pytest.raises(ModelError) as raised:
        await ask(service)
    assert raised.value.reason == reason
    assert len(upstream.requests) == before + 1


async def test_a_fallback_is_passed_over_that_does_not_take_what_was_asked(upstream: ModelServer) -> None:
    upstream.enqueue(DOWN, OK)
    warm = replace(HELLO, options=ModelOptions(temperature=0.5))
    service = FallbackService(OpenAIService(upstream.settings(profile={"kind": "openai"})), ["gpt-5-mini", "third"])
    async with aclosing(service.stream(CONTEXT, warm)) as chunks:
        assert (await anext(chunks)) == FallbackChunk("third", "offline")
    assert asked(upstream) == ["offline", "third"]
    async with aclosing(service.stream(CONTEXT, replace(warm, model="gpt-5-mini"))) as chunks:
        with pytest.raises(NotTakenError):
            await anext(chunks)
    await service.aclose()


async def test_a_content_filter_is_an_answer(upstream: ModelServer, service: ModelService) -> None:
    upstream.enqueue(RawAnswer([finish_frame("content_filter") + DONE]))
    (finish,) = await ask(service)
    assert isinstance(finish, FinishChunk)
    assert finish.reason is FinishReason.CONTENT_FILTER
    assert asked(upstream) == ["offline"]


async def test_when_none_is_available_the_chosen_ones_error_is_told(
    upstream: ModelServer, service: ModelService
) -> None:
    upstream.enqueue(RawAnswer([b"{}"], 429, {"Retry-After": "20"}), DOWN, DOWN)
    with pytest.raises(ModelError) as raised:
        await ask(service)
    assert (raised.value.reason, raised.value.retry_after_s) == (Reason.MODEL_RATE_LIMITED, 20)
