"""The corpus over a real socket, through OpenAIService, in chunks of several sizes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from parley_server.domain.content import TextPart
from parley_server.llm.model_service import ModelChunk, ModelError, ModelRequest, ModelService, UserMessage
from parley_server.llm.model_settings import ModelSettings
from parley_server.llm.openai_service import OpenAIService
from streams.case_server import CaseServer
from streams.corpus import Case, Expected, cases
from streams.outcomes import in_parleys_terms, outcome
from streams.verdict import differences
from unit.llm.service_calls import CONTEXT

AT_ONCE = 16


@pytest.fixture(scope="module")
async def service() -> AsyncIterator[ModelService]:
    async with CaseServer() as server:
        settings = ModelSettings.model_validate({"base_url": server.base_url, "api_key": "sk-test", "name": "unused"})
        asked: ModelService = OpenAIService(settings)
        yield asked
        await asked.aclose()


async def ask(service: ModelService, model: str) -> Expected:
    chunks: list[ModelChunk] = []
    request = ModelRequest(model, (UserMessage((TextPart("hello"),)),))
    try:
        async with aclosing(service.stream(CONTEXT, request)) as answer:
            async for chunk in answer:
                chunks.append(chunk)  # noqa: PERF401  # what came before an error counts
    except ModelError as error:
        return outcome(chunks, error.reason)
    return outcome(chunks, None)


@pytest.mark.parametrize(("size", "longest"), [(1, 400), (7, 2500), (4096, 1 << 30)])
async def test_every_case_over_a_socket(service: ModelService, size: int, longest: int) -> None:
    turns = asyncio.Semaphore(AT_ONCE)

    async def differences_of(case: Case) -> list[str]:
        async with turns:
            came = await ask(service, f"{case.name}@{size}")
        return differences(in_parleys_terms(case.expected), came)

    asked = [case for case in cases() if len(case.body) <= longest]
    told = await asyncio.gather(*map(differences_of, asked))
    assert {case.name: wrong for case, wrong in zip(asked, told, strict=True) if wrong} == {}
