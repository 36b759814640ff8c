"""The chat against a scripted server: what the screen shows and which conversation a line belongs to."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Sequence

import grpc
import pytest
from parley_client import ParleyClient, ReconnectLimits
from parley_console.chat import Chat
from parley_console.exit_codes import ExitCode
from unit.client.event_log import answered, failed
from unit.client.scripted_server import Context, Cut, ScriptedAdmin, ScriptedRun, abort, hang, serving
from unit.console.fake_terminal import plain_terminal

HASTY = ReconnectLimits(connect_for_s=0.3, reconnect_for_s=0.3, first_delay_s=0.001)


class TypedLines:
    """A prompt at which these lines are typed; the user leaves after the last."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = list(lines)

    async def read(self) -> str | None:
        return self._lines.pop(0) if self._lines else None


async def chat(run: ScriptedRun, *lines: str, admin: ScriptedAdmin | None = None) -> tuple[ExitCode, str]:
    """Type the lines; returns the exit code and what the screen shows below the greeting."""
    screen, stream = plain_terminal()
    async with serving(run, admin) as address, ParleyClient(address, "", reconnect=HASTY) as client:
        code = await Chat(client, TypedLines(lines), screen).run()
    return code, stream.getvalue().partition("Ctrl-D leaves\n")[2]


def pressing(times: int, then: Callable[[Context], Awaitable[None]]) -> Callable[[Context], Awaitable[None]]:
    """Press Ctrl-C so many times, then end the call."""

    async def press(context: Context) -> None:
        for _ in range(times):
            await asyncio.sleep(0.1)  # until what was sent is on the screen
            os.kill(os.getpid(), signal.SIGINT)
        await then(context)

    return press


def conversations_of(run: ScriptedRun) -> list[str]:
    return [call.conversation_id for call in run.calls if call.method == "RunAgent"]


async def test_lines_are_answered_in_one_conversation_until_a_new_one() -> None:
    run = ScriptedRun(answered("It is ", "391."))
    code, shown = await chat(run, "What is 17 * 23?", "And again?", "", "/new", "And now?")
    assert (code, shown) == (ExitCode.OK, "It is 391.\nIt is 391.\na new conversation\nIt is 391.\n")
    assert conversations_of(run) == ["", "conversation-1", ""]


async def test_slash_commands_are_not_sent() -> None:
    run = ScriptedRun()
    code, shown = await chat(run, "/help", "/what", "/quit", "never read")
    assert code == ExitCode.OK
    assert "/new" in shown
    assert "there is no /what; /help lists the commands\n" in shown
    assert run.calls == []


async def test_a_failed_run_is_one_line_and_the_prompt_comes_back() -> None:
    run = ScriptedRun(failed("MODEL_UNAVAILABLE", "no model"))
    code, shown = await chat(run, "one", "two")
    assert code == ExitCode.OK
    assert shown == "✗ the run failed: MODEL_UNAVAILABLE: no model\n" * 2


async def test_a_refused_call_is_one_line_and_the_prompt_comes_back() -> None:
    run = ScriptedRun(answered("yes"), cuts=[Cut(0, abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL"))])
    _, shown = await chat(run, "one", "two")
    assert shown == "✗ QUEUE_FULL: scripted\nyes\n"


async def test_a_lost_connection_is_shown_and_mended() -> None:
    run = ScriptedRun(answered("It is ", "391."), cuts=[Cut(3, abort(grpc.StatusCode.UNAVAILABLE))])
    _, shown = await chat(run, "one")
    assert shown == "It is \nreconnecting…\n391.\n"


async def test_ctrl_c_stops_the_answer_and_the_conversation_goes_on() -> None:
    run = ScriptedRun(answered("It is ", "391."), cuts=[Cut(3, pressing(1, abort(grpc.StatusCode.UNAVAILABLE)))])
    _, shown = await chat(run, "one", "two")
    assert shown == "It is \nstopping…\nreconnecting…\n391.\nstopped\nIt is 391.\n"
    assert [call.method for call in run.calls].count("CancelRun") == 1
    assert conversations_of(run) == ["", "conversation-1"]


async def test_a_second_ctrl_c_leaves_the_run_to_itself() -> None:
    run = ScriptedRun(answered("It is ", "391."), cuts=[Cut(3, pressing(2, hang))])
    _, shown = await chat(run, "one", "two")
    assert shown == "It is \nstopping…\n\nleft alone; the run goes on: run-1\nIt is 391.\n"


async def test_ctrl_c_before_the_greeting_leaves() -> None:
    admin = ScriptedAdmin(failures=[pressing(1, hang)])
    with pytest.raises(asyncio.CancelledError):
        await chat(ScriptedRun(), admin=admin)


async def test_a_server_that_refuses_ends_the_chat() -> None:
    admin = ScriptedAdmin(failures=[abort(grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID")])
    code, _ = await chat(ScriptedRun(), admin=admin)
    assert code == ExitCode.NOT_ALLOWED
