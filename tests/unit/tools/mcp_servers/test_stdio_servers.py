"""MCP servers that are programs: what they are given, what they may do, and how they end."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog
from parley_server.domain.tool import ToolCallStatus
from parley_server.tools.mcp import stdio
from unit.tools.mcp_servers.mcp_world import World, is_alive, open_world, raw_settings, until


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path, raw_settings(tmp_path, effects={"die": "write"})) as opened:
        yield opened


async def test_a_tool_is_called_and_answers(world: World) -> None:
    assert await world.call("echo", {"a": [1, {"b": None}]}) == {"text": '{"a": [1, {"b": null}]}'}
    assert (await world.error("fail")).message == "There is no such book."


async def test_every_user_has_a_program_of_his_own_and_keeps_it(world: World) -> None:
    first, second, again = [await world.said("env", user) for user in ("ann", "ben", "ann")]
    assert first["pid"] == again["pid"] != second["pid"]


async def test_a_shared_program_serves_all_users(tmp_path: Path) -> None:
    async with open_world(tmp_path, raw_settings(tmp_path, shared=True)) as world:
        assert (await world.said("env", "ann"))["pid"] == (await world.said("env", "ben"))["pid"]
        assert len([line for line in world.log if line.startswith("started")]) == 1


async def test_a_program_gets_no_more_of_the_environment_than_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    async with open_world(tmp_path, raw_settings(tmp_path, env={"MODE": "strict"})) as world:
        environment = (await world.said("env"))["environment"]
    assert isinstance(environment, dict)
    assert environment["MODE"] == "strict"
    # What Python and the C library add themselves.
    own = {"MODE", "LC_CTYPE", "__CF_USER_TEXT_ENCODING"}
    assert environment.keys() - own <= {"HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER"}


async def test_a_server_that_dies_in_the_middle_of_a_write_leaves_it_in_doubt_and_starts_again(world: World) -> None:
    await world.call("echo")
    error = await world.error("die")
    assert (error.status, error.retryable) == (ToolCallStatus.UNKNOWN_OUTCOME, False)
    assert await world.call("echo") == {"text": "{}"}


async def test_a_server_that_dies_in_the_middle_of_a_read_may_be_asked_again(tmp_path: Path) -> None:
    async with open_world(tmp_path, raw_settings(tmp_path)) as world:
        error = await world.error("die")
        assert (error.status, error.code, error.retryable) == (ToolCallStatus.ERROR, "unavailable", True)


async def test_a_server_that_dies_every_time_is_started_ever_more_seldom(world: World) -> None:
    for _ in range(20):
        await world.error("die")
    assert world.log.count("dying") < 5


async def test_a_call_that_is_given_up_is_cancelled_at_the_server(world: World) -> None:
    hanging = asyncio.create_task(world.call("hang"))
    await world.logged("hanging")
    hanging.cancel()
    await asyncio.wait({hanging})
    await world.logged("notifications/cancelled")
    assert await world.call("echo") == {"text": "{}"}


async def test_progress_is_passed_on(world: World) -> None:
    reported: list[tuple[str, float | None]] = []
    tool = await world.tool("progress")
    await tool.call(world.context(report=lambda *report: reported.append(report)), {})
    assert reported == [("step 1", 0.5), ("step 2", 1.0)]


@pytest.mark.parametrize("tool", ["flood", "long", "stray"])
async def test_a_server_that_says_too_much_loses_its_connection(world: World, tool: str) -> None:
    error = await world.error(tool)
    assert (error.code, error.retryable) == ("unavailable", True)
    assert await world.call("echo", user_id="ben") == {"text": "{}"}


async def test_lines_that_are_no_messages_are_passed_over(world: World) -> None:
    assert await world.call("garble") == {"text": "{}"}


async def test_an_answer_that_is_none_is_an_error(world: World) -> None:
    assert (await world.error("no_result")).code == "invalid_result"


async def test_what_a_program_writes_is_logged_until_users_are_served_and_then_only_if_wanted(tmp_path: Path) -> None:
    for wanted in (False, True):
        with structlog.testing.capture_logs() as logs:
            async with open_world(tmp_path, raw_settings(tmp_path, log_stderr=wanted)) as world:
                await world.call("grumble", {"said": "secret"})
        said = [line["text"] for line in logs if line["event"] == "mcp_program_says"]
        assert said.count("ready") == 2
        assert ("{'said': 'secret'}" in said) == wanted
        assert len(said) < 50


async def test_a_call_carries_its_idempotency_key(world: World) -> None:
    assert (await world.said("meta"))["parley.v1/idempotencyKey"] == "key of ann"


async def test_a_question_to_the_user_is_declined_and_told(world: World) -> None:
    answered = await world.call("ask")
    assert answered == {"text": "the user said decline", "declined_questions": ["Delete all?"]}
    error = await world.error("ask", {"gives_up": True})
    assert error.code == "input_required"
    assert "Delete all?" in error.message


async def test_a_call_that_the_user_has_approved_may_count_as_confirmed(tmp_path: Path) -> None:
    settings = {"effects": {"ask": "write"}, "accept_confirmations": True}
    async with open_world(tmp_path, raw_settings(tmp_path, **settings)) as world:
        assert await world.call("ask") == {"text": "the user said accept", "confirmed_questions": ["Delete all?"]}
        hanging = asyncio.create_task(world.call("hang"))
        await world.logged("hanging")
        # It may be about the other call.
        assert "declined_questions" in await world.call("ask")
        hanging.cancel()
    async with open_world(tmp_path, raw_settings(tmp_path, **settings, approval="never")) as world:
        assert "declined_questions" in await world.call("ask")


async def test_a_program_that_ignores_everything_is_killed_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stdio, "EXIT_PATIENCE_S", 0.1)
    async with open_world(tmp_path, raw_settings(tmp_path)) as world:
        pids = await world.said("child")
        assert is_alive(pids["pid"])
        assert is_alive(pids["child"])
    await until(lambda: not is_alive(pids["child"]))
    assert not is_alive(pids["pid"])


async def test_a_client_that_is_not_used_is_closed(tmp_path: Path) -> None:
    async with open_world(tmp_path, raw_settings(tmp_path, idle_s=0.05)) as world:
        pid = (await world.said("env"))["pid"]
        await until(lambda: not is_alive(pid))
        assert (await world.said("env"))["pid"] != pid


async def test_the_longest_unused_client_makes_room(tmp_path: Path) -> None:
    async with open_world(tmp_path, raw_settings(tmp_path, max_clients=2)) as world:
        first, second, third = [(await world.said("env", user))["pid"] for user in ("ann", "ben", "cleo")]
        await until(lambda: not is_alive(first))
        assert is_alive(second)
        assert is_alive(third)
        busy = [asyncio.create_task(world.call("hang", user_id=user)) for user in ("ben", "cleo")]
        await until(lambda: world.log.count("hanging") == 2)
        assert (await world.error("echo", user_id="ann")).code == "unavailable"
        for task in busy:
            task.cancel()
        await asyncio.wait(busy)


async def test_a_program_that_cannot_be_started_makes_its_tools_unavailable(tmp_path: Path) -> None:
    async with open_world(tmp_path, raw_settings(tmp_path)) as world:
        await world.tool("echo")
    broken = raw_settings(tmp_path, command="/nowhere/to/be/found")
    async with open_world(tmp_path, broken) as world:
        error = await world.error("echo")
        assert (error.code, error.retryable) == ("unavailable", True)


def test_the_process_of_the_tests_has_no_children_left() -> None:
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert not [pid for pid in children if "raw_server" in Path(f"/proc/{pid}/cmdline").read_text()]
