"""The OpenAIService against a real HTTP server: what it sends, what it makes of the answer, and how it gives up."""

import asyncio
import json
from base64 import b64encode
from contextlib import aclosing
from urllib.parse import urlsplit

import pytest
from model_server import ModelServer, RawAnswer, text_frame
from parley_server.domain.content import ImagePart, TextPart
from parley_server.domain.errors import Reason
from parley_server.domain.run import ModelOptions
from parley_server.domain.tool import ToolCall, ToolEffect, ToolSpec
from parley_server.domain.usage import Usage
from parley_server.llm.model_service import (
    AssistantMessage,
    FinishChunk,
    FinishReason,
    ModelRequest,
    SystemMessage,
    TextChunk,
    ToolMessage,
    UserMessage,
)
from unit.llm.service_calls import CONTEXT, HELLO, WHOLE, ask, failure, service_at


async def test_a_conversation_is_sent_as_chat_completions(upstream: ModelServer) -> None:
    schema = '{"type": "object", "properties": {"x": {"type": "integer"}}}'
    request = ModelRequest(
        "offline",
        (
            SystemMessage("Be brief."),
            UserMessage((TextPart("a"), TextPart("b"))),
            AssistantMessage("", (ToolCall("call_1", "f", '{"x": 1}'), ToolCall("call_2", "g", "garbage"))),
            ToolMessage("call_1", '{"ok": true}'),
            ToolMessage("call_2", '{"ok": false}'),
            AssistantMessage("Done."),
            UserMessage((TextPart("look"), ImagePart("image/png", content=b"\x89"), ImagePart("", uri="https://x/y"))),
        ),
        (ToolSpec("f", "Does f.", schema, ToolEffect.READ),),
        ModelOptions(temperature=0.0, top_p=0.5, max_output_tokens=9, stop=("END",), seed=7),
    )
    await ask(upstream, request)
    assert upstream.requests[0].body == {
        "model": "offline",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "a\n\nb"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
                    {"id": "call_2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": '{"ok": true}'},
            {"role": "tool", "tool_call_id": "call_2", "content": '{"ok": false}'},
            {"role": "assistant", "content": "Done."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "look"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iQ=="}},
                    {"type": "image_url", "image_url": {"url": "https://x/y"}},
                ],
            },
        ],
        "tools": [
            {"type": "function", "function": {"name": "f", "description": "Does f.", "parameters": json.loads(schema)}}
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.0,
        "top_p": 0.5,
        "max_tokens": 9,
        "stop": ["END"],
        "seed": 7,
    }


async def test_options_that_are_not_set_are_not_sent(upstream: ModelServer) -> None:
    await ask(upstream)
    assert upstream.requests[0].body.keys() == {"model", "messages", "stream", "stream_options"}


async def test_the_key_is_sent_and_without_one_there_is_no_authorization(upstream: ModelServer) -> None:
    await ask(upstream, api_key=" sk-secret\n")
    await ask(upstream, api_key="")
    first, second = upstream.requests
    assert first.headers["Authorization"] == "Bearer sk-secret"
    assert "Authorization" not in second.headers


async def test_a_whole_answer(upstream: ModelServer) -> None:
    upstream.enqueue(RawAnswer([WHOLE]))
    usage = Usage(input_tokens=3, output_tokens=1, model_calls=1)
    assert await ask(upstream) == [TextChunk("Hi"), FinishChunk(FinishReason.STOP, (), usage)]


async def test_chunks_arrive_while_the_answer_is_still_being_written(upstream: ModelServer) -> None:
    upstream.enqueue(RawAnswer([text_frame("Hi")], then="hang"))
    async with service_at(upstream) as service, aclosing(service.stream(CONTEXT, HELLO)) as chunks:
        async with asyncio.timeout(5):
            assert await anext(chunks) == TextChunk("Hi")


async def test_the_text_of_one_read_is_joined(upstream: ModelServer) -> None:
    upstream.enqueue(RawAnswer([text_frame("Hel") + text_frame("lo"), text_frame("!") + WHOLE], pause_s=0.05))
    chunks = await ask(upstream)
    assert chunks[:2] == [TextChunk("Hello"), TextChunk("!Hi")]


async def test_one_byte_at_a_time(upstream: ModelServer) -> None:
    stream = text_frame("grün") + WHOLE
    upstream.enqueue(RawAnswer([stream[place : place + 1] for place in range(len(stream))]))
    chunks = await ask(upstream)
    assert "".join(chunk.text for chunk in chunks if isinstance(chunk, TextChunk)) == "grünHi"


async def test_a_connection_is_used_again(upstream: ModelServer) -> None:
    peers = []
    async with service_at(upstream) as service:
        for _ in range(3):
            upstream.enqueue(RawAnswer([WHOLE]))
            async with aclosing(service.stream(CONTEXT, HELLO)) as chunks:
                assert isinstance([chunk async for chunk in chunks][-1], FinishChunk)
            peers.append(upstream.requests[-1].peer)
    assert len(set(peers)) == 1


async def test_no_cookie_of_one_answer_goes_with_the_next_question(upstream: ModelServer) -> None:
    headers = {"Content-Type": "text/event-stream", "Set-Cookie": "who=ann; Path=/"}
    upstream.enqueue(RawAnswer([WHOLE], headers=headers), RawAnswer([WHOLE]))
    # A client keeps none of an address without a name.
    named = upstream.base_url.replace("127.0.0.1", "localhost")
    async with service_at(upstream, base_url=named) as service:
        for _ in range(2):
            async with aclosing(service.stream(CONTEXT, HELLO)) as chunks:
                assert [chunk async for chunk in chunks]
    assert "Cookie" not in upstream.requests[1].headers


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy"])
async def test_a_proxy_of_the_environment_is_asked(
    upstream: ModelServer, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    # A proxy sees a request as the server does, with the server's name in it.
    monkeypatch.setenv(variable, upstream.base_url.removeprefix("http://").removesuffix("/v1"))
    upstream.enqueue(RawAnswer([WHOLE]))
    assert await ask(upstream, base_url="http://model.invalid/v1")
    assert upstream.requests[0].headers["Host"] == "model.invalid"


@pytest.mark.parametrize("proxy", ["http://proxy.invalid", "socks5://proxy.invalid"])
@pytest.mark.parametrize("with_port", [False, True])
async def test_no_proxy_is_asked_where_the_environment_says_so(
    upstream: ModelServer, monkeypatch: pytest.MonkeyPatch, proxy: str, *, with_port: bool
) -> None:
    address = urlsplit(upstream.base_url)
    monkeypatch.setenv("all_proxy", proxy)
    monkeypatch.setenv("no_proxy", address.netloc if with_port else str(address.hostname))
    upstream.enqueue(RawAnswer([WHOLE]))
    assert await ask(upstream)


async def test_a_proxy_that_lets_nobody_through_is_no_answer_of_the_server(
    upstream: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", upstream.base_url.removesuffix("/v1"))
    told = await failure(upstream, base_url="https://model.invalid/v1", retries=0)
    assert told.reason is Reason.MODEL_UNAVAILABLE


async def test_a_user_in_the_address_takes_the_place_of_the_key(upstream: ModelServer) -> None:
    upstream.enqueue(RawAnswer([WHOLE]))
    address = upstream.base_url.replace("http://", "http://ann:p%40ss@")
    assert await ask(upstream, base_url=address, api_key="sk-1")
    assert upstream.requests[0].headers["Authorization"] == f"Basic {b64encode(b'ann:p@ss').decode()}"


async def test_a_header_may_be_long(upstream: ModelServer) -> None:
    headers = {"Content-Type": "text/event-stream", "Content-Security-Policy": "x" * 30_000}
    upstream.enqueue(RawAnswer([WHOLE], headers=headers))
    assert await ask(upstream)


async def test_megabytes_are_sent_as_they_are(upstream: ModelServer) -> None:
    image = bytes(3 * 1024 * 1024)
    upstream.enqueue(RawAnswer([WHOLE]))
    await ask(upstream, ModelRequest("offline", (UserMessage((ImagePart("image/png", content=image),)),)))
    [part] = upstream.requests[0].body["messages"][0]["content"]
    assert part["image_url"]["url"] == f"data:image/png;base64,{b64encode(image).decode()}"
