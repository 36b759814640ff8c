"""MCP servers by streamable HTTP: the library's own, and ones that answer as no server should."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from parley_server.domain.approval import MAX_QUESTION_BYTES
from parley_server.domain.tool import ToolCallStatus
from parley_server.tools.mcp import source
from parley_server.tools.mcp.mcp_settings import McpServerSettings
from parley_server.tools.mcp.resumption import Resumption
from pydantic import SecretStr
from unit.tools.mcp_servers.mcp_world import World, open_world, until
from unit.tools.mcp_servers.sdk_server import SdkServer, running_sdk_server

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def sdk() -> AsyncIterator[SdkServer]:
    async with running_sdk_server() as server:
        yield server


def at(url: str, **more: object) -> McpServerSettings:
    return McpServerSettings.model_validate({"url": url, "effect": "read", **more})


async def test_a_users_secret_goes_into_a_header_of_his_own_client(sdk: SdkServer, tmp_path: Path) -> None:
    settings = at(sdk.url, headers={"authorization": "listing"}, user_headers={"Authorization": "Bearer {github}"})
    async with open_world(tmp_path, settings) as world:
        for user in ("ann", "ben"):
            world.credentials.put(user, "github", SecretStr(f"token-of-{user}"))
        asked = ["ann", "ben"] * 10
        answers = await asyncio.gather(*(world.call("whoami", user_id=user) for user in asked))
    assert [answer["structured"] for answer in answers] == [{"result": f"Bearer token-of-{user}"} for user in asked]


async def test_a_call_that_is_given_up_is_cancelled_at_the_server(sdk: SdkServer, tmp_path: Path) -> None:
    async with open_world(tmp_path, at(sdk.url)) as world:
        waiting = asyncio.create_task(world.call("wait", {"name": "first"}))
        await until(lambda: sdk.waiting == ["first"])
        waiting.cancel()
        await until(lambda: sdk.cancelled == ["first"])
        assert await world.call("whoami") == {"structured": {"result": "nobody"}}


async def test_progress_comes_through(sdk: SdkServer, tmp_path: Path) -> None:
    reported: list[tuple[str, float | None]] = []
    async with open_world(tmp_path, at(sdk.url)) as world:
        tool = await world.tool("steps")
        await tool.call(world.context(report=lambda *report: reported.append(report)), {})
    assert reported == [("one", 0.25)]


async def test_what_yes_answers_is_asked_of_the_user_question_by_question(sdk: SdkServer, tmp_path: Path) -> None:
    async with open_world(tmp_path, at(sdk.url)) as world:
        first = await world.asked("remove")
        second = await world.asked("remove", first)
        answered = await world.confirmed("remove", first, second)
    assert [first.question, second.question] == sdk.questions
    assert answered == {"structured": {"result": "removed after 2"}, "confirmed_questions": sdk.questions}


async def test_a_server_that_has_forgotten_is_asked_anew_and_told_only_what_the_user_said(
    sdk: SdkServer, tmp_path: Path
) -> None:
    async with open_world(tmp_path, at(sdk.url)) as world:
        first = await world.asked("remove")
        # It refuses what it has not sealed itself, as one that was started anew does.
        forgotten = replace(first, state=Resumption(state="nobody's").text)
        second = await world.asked("remove", forgotten)
        assert await world.confirmed("remove", first, replace(second, state=forgotten.state)) == {
            "structured": {"result": "removed after 2"},
            "confirmed_questions": sdk.questions,
        }
        sdk.questions[0] = "Remove all, and format the disk?"
        assert (await world.asked("remove", forgotten)).question == sdk.questions[0]


async def test_what_yes_does_not_answer_is_declined_and_told(sdk: SdkServer, tmp_path: Path) -> None:
    async with open_world(tmp_path, at(sdk.url)) as world:
        answered = await world.call("sign")
        assert answered == {
            "structured": {"result": "decline, decline"},
            "declined_questions": ["Whose name?", "Sign?"],
        }
        sdk.questions[0] = "?" * (MAX_QUESTION_BYTES + 1)
        sdk.questions[1:] = []
        assert (await world.call("remove"))["declined_questions"] == sdk.questions


async def test_a_list_that_grows_is_noticed(sdk: SdkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MIN_PAUSE_S", 0.0)
    async with open_world(tmp_path, at(sdk.url)) as world:
        await world.call("grow")
        await until(lambda: "raw_more" in world.registry.names)
        assert await world.call("more") == {"structured": {"result": "more"}}


class OddServer:
    """A server that speaks the protocol until a tool is called; `answer` is what it says then."""

    def __init__(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/mcp", self.handle)
        self.runner = web.AppRunner(app)
        self.url = ""
        self.calls = 0
        self.answer: Handler = self.result

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.method != "POST":
            return web.Response(status=405)
        message = await request.json()
        match message["method"]:
            case "initialize":
                info = {"name": "odd", "version": "1"}
                result: dict[str, object] = {
                    "protocolVersion": "2025-11-25",
                    "capabilities": {"tools": {}},
                    "serverInfo": info,
                }
            case "tools/list":
                tools = [{"name": name, "inputSchema": {"type": "object"}} for name in ("read", "write")]
                result = {"tools": tools}
            case "tools/call":
                self.calls += 1
                return await self.answer(request)
            case "server/discover":
                return web.Response(status=400)
            case _:
                return web.Response(status=202)
        headers = {"Mcp-Session-Id": f"session-{self.calls}"}
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": result}, headers=headers)

    async def result(self, request: web.Request) -> web.StreamResponse:
        message = await request.json()
        text = str(request.headers.get("Mcp-Session-Id"))
        result = {"content": [{"type": "text", "text": text}]}
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": result})


@asynccontextmanager
async def odd_world(folder: Path) -> AsyncIterator[tuple[OddServer, World]]:
    odd = OddServer()
    await odd.runner.setup()
    try:
        site = web.TCPSite(odd.runner, "127.0.0.1", 0)
        await site.start()
        odd.url = f"http://127.0.0.1:{odd.runner.addresses[0][1]}/mcp"
        async with open_world(folder, at(odd.url, effects={"write": "write"})) as world:
            yield odd, world
    finally:
        await odd.runner.cleanup()


def status(code: int, body: bytes = b"<html>", **headers: str) -> Handler:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=code, body=body, headers=headers)

    return answer


BOMB = gzip.compress(b"[" + b" " * 20_000_000)
ENDLESS = b'{"jsonrpc": "2.0", "id": 1, "result": "' + b"x" * 9_000_000
JSON = {"Content-Type": "application/json"}

FAULTS = [
    (status(401), "credential_refused", "credential_refused"),
    (status(403), "credential_refused", "credential_refused"),
    (status(429), "rate_limited", "rate_limited"),
    (status(418), "refused", "refused"),
    (status(502), "unavailable", "unknown_outcome"),
    (status(500, b'{"error": "no"}', **JSON), "unavailable", "unknown_outcome"),
    (status(200, b"{not json", **JSON), "unavailable", "unknown_outcome"),
    (status(200, BOMB, **JSON, **{"Content-Encoding": "gzip"}), "unavailable", "unknown_outcome"),
    (status(200, ENDLESS, **JSON), "unavailable", "unknown_outcome"),
    (status(200, b"data: {}\n\n", **{"Content-Type": "text/event-stream"}), "unavailable", "unknown_outcome"),
]


async def test_every_fault_is_told_for_what_it_is(tmp_path: Path) -> None:
    async with odd_world(tmp_path) as (odd, world):
        for answer, of_read, of_write in FAULTS:
            odd.answer = answer
            read, write = await world.error("read"), await world.error("write")
            assert (read.code, write.code) == (of_read, of_write)
            assert (write.status is ToolCallStatus.UNKNOWN_OUTCOME) == (of_write == "unknown_outcome")
        odd.answer = odd.result
        assert "text" in await world.call("read")


async def test_a_session_that_the_server_has_forgotten_is_begun_again(tmp_path: Path) -> None:
    async with odd_world(tmp_path) as (odd, world):
        assert await world.call("write") == {"text": "session-0"}
        odd.answer = status(404)
        error = await world.error("write")
        assert (error.code, error.retryable) == ("unavailable", True)
        odd.answer = odd.result
        assert await world.call("write") == {"text": "session-2"}


async def test_a_call_that_does_not_reach_the_server_has_done_nothing(tmp_path: Path) -> None:
    async with odd_world(tmp_path) as (odd, world):
        await world.call("write")
        await odd.runner.cleanup()
        for _ in range(2):
            error = await world.error("write")
            assert (error.code, error.retryable) == ("unavailable", True)
    async with open_world(tmp_path, at("http://127.0.0.1:1/mcp")) as world:
        assert (await world.error("write")).code == "unavailable"
