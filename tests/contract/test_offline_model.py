"""The offline model over HTTP, seen by OpenAI's own client and by ours; and its manual, whose examples must work."""

import asyncio
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import openai
import pytest
from parley_server.domain.content import TextPart
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import Reason
from parley_server.domain.principal import Principal, PrincipalKind
from parley_server.domain.tool import ToolEffect, ToolSpec
from parley_server.llm.model_service import (
    AssistantMessage,
    FinishChunk,
    FinishReason,
    ModelChunk,
    ModelError,
    ModelMessage,
    ModelRequest,
    ReasoningChunk,
    TextChunk,
    ToolMessage,
    UserMessage,
)
from parley_server.llm.model_settings import ModelSettings
from parley_server.llm.offline.script import load_script, parse_script
from parley_server.llm.offline.server import OfflineModelServer
from parley_server.llm.openai_service import OpenAIService

MANUAL = Path(__file__).parents[2] / "docs" / "offline-model.md"
CALCULATOR = ToolSpec("calculator", "Calculates.", '{"type": "object"}', ToolEffect.READ)
CONTEXT = RequestContext(
    user_id="ann",
    principal=Principal(kind=PrincipalKind.USER, subject="ann", method="test"),
    request_id="req_1",
    timestamp=datetime.now(UTC),
)
SCRIPT = parse_script(
    """
rules:
  - {when: "^words$", text: "one  two\\nthree ", chunk_size: 2}
  - {when: "^letters$", text: "abcde", chunk_unit: characters, chunk_size: 2}
  - {when: "^think$", text: "42", reasoning: "Hm, hm."}
  - {when: "^slow$", text: "a b c d", chunk_delay_ms: 50, first_delay_ms: 100}
  - {when: "^short$", text: "a", finish_reason: length}
  - {when: "^busy$", fault: {status: 429, retry_after_s: 7}}
  - {when: "^cut$", text: "a b c", fault: {cut_after_chunks: 2}}
  - {when: "^cut at once$", text: "a b c", fault: {cut_after_chunks: 0}}
  - {when: "^stall$", text: "a b c", fault: {stall_s: 30}}
  - {when: "^garbage$", fault: {garbage: "<html>busy</html>"}}
  - {text: "?"}
""",
    "test",
)


@asynccontextmanager
async def service_at(base_url: str, **settings: object) -> AsyncIterator[OpenAIService]:
    service = OpenAIService(ModelSettings.model_validate({"base_url": base_url, "name": "offline", **settings}))
    try:
        yield service
    finally:
        await service.aclose()


@pytest.fixture(scope="module")
async def base_url() -> AsyncIterator[str]:
    async with OfflineModelServer(SCRIPT) as server:
        yield server.base_url


@pytest.fixture(scope="module")
async def service(base_url: str) -> AsyncIterator[OpenAIService]:
    async with service_at(base_url, gap_timeout_s=0.5) as opened:
        yield opened


async def ask(service: OpenAIService, *messages: ModelMessage, tools: tuple[ToolSpec, ...] = ()) -> list[ModelChunk]:
    async with aclosing(service.stream(CONTEXT, ModelRequest("offline", messages, tools))) as chunks:
        return [chunk async for chunk in chunks]


def user(text: str) -> UserMessage:
    return UserMessage((TextPart(text),))


def finish_of(chunks: list[ModelChunk]) -> FinishChunk:
    assert isinstance(chunks[-1], FinishChunk)
    return chunks[-1]


def text_of(chunks: list[ModelChunk]) -> str:
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, TextChunk))


@asynccontextmanager
async def sdk_at(base_url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key="any", base_url=base_url, max_retries=0) as client:
        yield client


async def test_the_sdk_reads_it_streamed_and_whole(base_url: str) -> None:
    async with sdk_at(base_url) as client:
        stream = await client.chat.completions.create(
            model="offline",
            messages=[{"role": "user", "content": [{"type": "text", "text": "words"}]}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        assert [chunk.choices[0].delta.content for chunk in chunks[1:-2]] == ["one  two", "\nthree "]
        assert chunks[-2].choices[0].finish_reason == "stop"
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 3
        whole = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "think"}])
        assert (whole.model, whole.choices[0].message.content) == ("m", "42")


async def test_the_sdk_lists_the_model(base_url: str) -> None:
    async with sdk_at(base_url) as client:
        assert [model.id async for model in await client.models.list()] == ["offline"]
        assert (await client.models.retrieve("offline")).owned_by == "parley"


async def test_the_sdk_reads_a_tool_call_and_its_errors(base_url: str) -> None:
    async with OfflineModelServer(load_script()) as server, sdk_at(server.base_url) as client:
        whole = await client.chat.completions.create(
            model="offline",
            messages=[{"role": "user", "content": "What is 17 * 23?"}],
            tools=[{"type": "function", "function": {"name": "calculator"}}],
        )
        (call,) = whole.choices[0].message.tool_calls or []
        assert call.type == "function"
        assert call.function.arguments == '{"expression": "17 * 23"}'
    async with sdk_at(base_url) as client:
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "busy"}])


async def test_a_tool_turn_from_question_to_answer() -> None:
    async with OfflineModelServer(load_script()) as server, service_at(server.base_url) as service:
        finish = finish_of(await ask(service, user("What is 17 * 23?"), tools=(CALCULATOR,)))
        assert finish.reason is FinishReason.TOOL_CALLS
        (call,) = finish.tool_calls
        chunks = await ask(
            service,
            user("What is 17 * 23?"),
            AssistantMessage("", (call,)),
            ToolMessage(call.call_id, '{"ok": true, "result": {"value": "391"}}'),
            tools=(CALCULATOR,),
        )
        assert text_of(chunks) == "17 * 23 = 391"
        assert finish_of(chunks).reason is FinishReason.STOP
        assert finish_of(chunks).usage.output_tokens == 5
        assert "does not offer it" in text_of(await ask(service, user("What is 17 * 23?")))


async def test_letters_reasoning_and_the_finish_reason(service: OpenAIService) -> None:
    assert text_of(await ask(service, user("letters"))) == "abcde"
    thought = await ask(service, user("think"))
    assert "".join(chunk.text for chunk in thought if isinstance(chunk, ReasoningChunk)) == "Hm, hm."
    assert finish_of(await ask(service, user("short"))).reason is FinishReason.LENGTH


async def test_the_pace(service: OpenAIService) -> None:
    started = time.monotonic()
    assert text_of(await ask(service, user("slow"))) == "a b c d"
    assert time.monotonic() - started >= 0.1 + 3 * 0.05


@pytest.mark.parametrize(
    ("text", "reason", "before"),
    [
        ("busy", Reason.MODEL_RATE_LIMITED, ""),
        ("cut", Reason.MODEL_STREAM_INCOMPLETE, "a b"),
        ("cut at once", Reason.MODEL_STREAM_INCOMPLETE, ""),
        ("stall", Reason.MODEL_TIMEOUT, "a"),
        ("garbage", Reason.MODEL_RESPONSE_INVALID, ""),
    ],
)
async def test_faults(service: OpenAIService, text: str, reason: Reason, before: str) -> None:
    received: list[ModelChunk] = []

    async def collect() -> None:
        async with aclosing(service.stream(CONTEXT, ModelRequest("offline", (user(text),)))) as chunks:
            async for chunk in chunks:
                received.append(chunk)  # noqa: PERF401 - an error would take a comprehension's list with it

    with pytest.raises(ModelError) as raised:
        await collect()
    assert raised.value.reason == reason
    assert raised.value.retry_after_s == (7 if text == "busy" else None)
    assert text_of(received) == before


@pytest.mark.parametrize("text", ["cut", "garbage"])
async def test_faults_of_an_answer_that_is_not_streamed(base_url: str, text: str) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": text}]}
    async with aiohttp.ClientSession() as session:
        with pytest.raises((aiohttp.ClientError, ValueError)):
            async with session.post(f"{base_url}/chat/completions", json=body) as response:
                await response.json()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model": "m", "messages": []}', b'{"messages": [{"role": 1}]}'])
async def test_a_bad_request_is_told_so(base_url: str, body: bytes) -> None:
    async with aiohttp.ClientSession() as session, session.post(f"{base_url}/chat/completions", data=body) as response:
        assert response.status == 400
        assert (await response.json())["error"]["message"]


async def test_leaving_the_server_does_not_wait_for_answers_under_way() -> None:
    async with OfflineModelServer(SCRIPT) as server, service_at(server.base_url) as service:
        stream = service.stream(CONTEXT, ModelRequest("offline", (user("stall"),)))
        async with aclosing(stream) as chunks:
            await anext(chunks)
            started = time.monotonic()
            await server.__aexit__(None, None, None)
            assert time.monotonic() - started < 2


async def test_it_runs_on_its_own_and_stops_when_interrupted(tmp_path: Path) -> None:
    script = tmp_path / "script.yaml"
    script.write_text("rules: [{text: mine}]")
    program = (
        "from pathlib import Path; from parley_server.llm.offline.command import run_offline_model; "
        f"run_offline_model('127.0.0.1:0', Path({str(script)!r}))"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    address = re.search(r"http://127\.0\.0\.1:\d+/v1", line)
    assert address
    async with service_at(address[0]) as service:
        assert text_of(await ask(service, user("x"))) == "mine"
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 10) == 0


def test_the_manual_s_examples_are_scripts() -> None:
    examples = re.findall(r"```yaml\n(rules:.*?)```", MANUAL.read_text(), re.DOTALL)
    assert len(examples) >= 3
    for number, example in enumerate(examples):
        parse_script(example, f"example {number}")
