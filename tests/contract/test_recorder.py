"""What the recorder writes, the offline model plays: the same answers, and never a key."""

from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from model_server import DONE, ModelServer, RawAnswer, finish_frame, text_frame
from parley_server.domain.content import TextPart
from parley_server.domain.context import RequestContext
from parley_server.domain.principal import Principal, PrincipalKind
from parley_server.domain.tool import ToolEffect, ToolSpec
from parley_server.llm.model_service import (
    AssistantMessage,
    FinishChunk,
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
from parley_server.llm.offline.recorder import Recorder
from parley_server.llm.offline.script import ScriptError, load_script
from parley_server.llm.offline.server import OfflineModelServer
from parley_server.llm.openai_service import OpenAIService

SECRET = "sk-recorded-nowhere"
CONTEXT = RequestContext(
    user_id="ann",
    principal=Principal(kind=PrincipalKind.USER, subject="ann", method="test"),
    request_id="req",
    timestamp=datetime.now(UTC),
)
WEATHER = ToolSpec("weather", "Tells the weather.", '{"type":"object"}', ToolEffect.READ)
SCRIPT = {
    "rules": [
        {"after_tool": "weather", "text": "It is {tool_result.sky} {{really}}."},
        {"when": "weather", "tool_calls": [{"name": "weather", "arguments": {"city": "{{Kyoto}}", "days": 3}}]},
        {"when": "think", "reasoning": "Hm.", "text": "Done: 50 % {{x}}"},
        {"text": "Cut", "finish_reason": "length"},
    ]
}


async def ask(base_url: str, *messages: ModelMessage, model: str = "m") -> list[ModelChunk]:
    service = OpenAIService(ModelSettings.model_validate({"base_url": base_url, "api_key": SECRET, "name": "m"}))
    try:
        async with aclosing(service.stream(CONTEXT, ModelRequest(model, messages, (WEATHER,)))) as chunks:
            return [chunk async for chunk in chunks]
    finally:
        await service.aclose()


def said(chunks: Sequence[ModelChunk]) -> tuple[object, ...]:
    """What a client can tell answers apart by; ids and counts are each server's own."""
    finish = chunks[-1]
    assert isinstance(finish, FinishChunk)
    texts = ["".join(c.text for c in chunks if isinstance(c, kind)) for kind in (TextChunk, ReasoningChunk)]
    return (*texts, finish.reason, [(call.name, call.arguments_json) for call in finish.tool_calls])


def user(text: str) -> UserMessage:
    return UserMessage((TextPart(text),))


async def conversation(base_url: str) -> list[tuple[object, ...]]:
    first = await ask(base_url, user("What (exactly) is the weather? {x}"))
    finish = first[-1]
    assert isinstance(finish, FinishChunk)
    (call,) = finish.tool_calls
    answered = (AssistantMessage("", (call,)), ToolMessage(call.call_id, '{"sky": "blue"}'))
    return [
        said(first),
        said(await ask(base_url, user("What (exactly) is the weather? {x}"), *answered)),
        said(await ask(base_url, user("Please think"))),
        said(await ask(base_url, user("x" * 3000))),
    ]


async def test_what_was_recorded_is_played_the_same(tmp_path: Path) -> None:
    path = tmp_path / "recorded.yaml"
    async with ModelServer(SCRIPT) as upstream, Recorder(upstream.base_url, path) as recorder:
        live = await conversation(recorder.base_url)
        assert upstream.requests[0].headers["Authorization"] == f"Bearer {SECRET}"
    assert live[1][0] == "It is blue {really}."
    assert SECRET not in path.read_text(encoding="utf-8")
    async with OfflineModelServer(load_script(path)) as player:
        assert await conversation(player.base_url) == live


async def test_a_newer_answer_replaces_the_older_and_a_script_is_added_to(tmp_path: Path) -> None:
    path = tmp_path / "recorded.yaml"
    for answer in ("one", "two"):
        async with (
            ModelServer({"rules": [{"text": answer}]}) as upstream,
            Recorder(upstream.base_url, path) as recorder,
        ):
            await ask(recorder.base_url, user("hello"))
            await ask(recorder.base_url, user(answer))
    assert [rule.text for rule in load_script(path).rules] == ["two", "one", "two"]


async def test_a_broken_answer_reaches_the_client_and_no_script(tmp_path: Path) -> None:
    path = tmp_path / "recorded.yaml"
    async with ModelServer() as upstream, Recorder(upstream.base_url, path) as recorder:
        upstream.enqueue(RawAnswer([text_frame("half")]), RawAnswer([b"no"], status=503))
        for _ in range(2):
            with pytest.raises(ModelError):
                await ask(recorder.base_url, user("hello"))
        assert not path.exists()
        upstream.enqueue(RawAnswer([text_frame("whole"), finish_frame(), DONE]))
        await ask(recorder.base_url, user("hello"))
        assert [rule.text for rule in load_script(path).rules] == ["whole"]


async def test_a_file_that_is_no_script_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text("a: 1", encoding="utf-8")
    with pytest.raises(ScriptError):
        Recorder("http://127.0.0.1:1/v1", path)
    assert path.read_text(encoding="utf-8") == "a: 1"


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("offline-busy", "MODEL_RATE_LIMITED"),
        ("offline-down", "MODEL_UNAVAILABLE"),
        ("offline-cut", "MODEL_STREAM_INCOMPLETE"),
        ("offline-garbage", "MODEL_RESPONSE_INVALID"),
    ],
)
async def test_a_models_name_chooses_the_failure(model: str, reason: str) -> None:
    async with OfflineModelServer(load_script()) as server:
        with pytest.raises(ModelError) as failed:
            await ask(server.base_url, user("hello"), model=model)
        assert failed.value.reason == reason
        assert said(await ask(server.base_url, user("hello"), model="offline"))[0]
