"""The chat against a scripted server: what the terminal shows and which conversation a message belongs to."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import grpc
from parley.v1.agent_pb2 import Agent
from parley_client import ParleyClient, ReconnectLimits
from parley_console.chat import Chat, Opening
from parley_console.exit_codes import ExitCode
from parley_console.interrupts import Sigint
from unit.client.event_log import answered, failed
from unit.client.scripted_server import Context, Cut, ScriptedRun, abort, hang, serving
from unit.console.recording_terminal import RecordingTerminal

HASTY = ReconnectLimits(connect_for_s=0.3, reconnect_for_s=0.3, first_delay_s=0.001)


async def chat(
    run: ScriptedRun, *texts: str, pause_s: float = 0.3, stay_s: float = 0.5
) -> tuple[ExitCode, RecordingTerminal]:
    """Type the texts; returns the exit code and what the terminal was told to show."""
    terminal = RecordingTerminal(*texts, pause_s=pause_s, stay_s=stay_s)
    sigint = Sigint()
    async with serving(run) as address, ParleyClient(address, "", reconnect=HASTY) as client:
        with sigint.installed():
            code = await Chat(client, terminal, sigint, Opening(agent="assistant")).run()
    return code, terminal


def pressing(times: int, then: Callable[[Context], Awaitable[None]]) -> Callable[[Context], Awaitable[None]]:
    """Press Ctrl-C so many times, then end the call."""

    async def press(context: Context) -> None:
        for _ in range(times):
            await asyncio.sleep(0.1)  # until what was sent is on the screen
            os.kill(os.getpid(), signal.SIGINT)
        await then(context)

    return press


def pausing(seconds: float) -> Callable[[Context], Awaitable[None]]:
    """Keep the call silent for a while, then lose it."""

    async def pause(context: Context) -> None:
        await asyncio.sleep(seconds)
        await abort(grpc.StatusCode.UNAVAILABLE)(context)

    return pause


def conversations_of(run: ScriptedRun) -> list[str]:
    return [call.conversation_id for call in run.calls if call.method == "RunAgent"]


async def test_messages_are_answered_in_one_conversation_until_a_new_one() -> None:
    run = ScriptedRun(answered("It is ", "391."))
    code, terminal = await chat(run, "What is 17 * 23?", "And again?", "", "/new", "And now?")
    assert code == ExitCode.OK
    assert terminal.lines == [
        *("you> What is 17 * 23?", "It is 391."),
        *("you> And again?", "It is 391."),
        "a new conversation",
        *("you> And now?", "It is 391."),
    ]
    assert conversations_of(run) == ["", "conversation-1", ""]


async def test_slash_commands_are_not_sent() -> None:
    run = ScriptedRun(agents=[Agent(agent_id="assistant", description="helps")])
    code, terminal = await chat(run, "/help", "/what", "/agent", "/agent nobody", "/quit", "never read")
    assert code == ExitCode.OK
    help_shown, *others = terminal.lines
    assert "/new" in help_shown
    assert others == [
        "there is no /what; /help lists the commands",
        "* assistant            helps",
        "there is no agent nobody; /agent lists them",
    ]
    assert {call.method for call in run.calls} == {"ListAgents"}


async def test_a_failed_run_is_one_line_and_the_next_message_is_answered() -> None:
    _, terminal = await chat(ScriptedRun(failed("MODEL_UNAVAILABLE", "no model")), "one", "two")
    complaint = "✗ the run failed: MODEL_UNAVAILABLE: no model"
    assert terminal.lines == ["you> one", complaint, "you> two", complaint]


async def test_a_refused_call_is_one_line_and_the_next_message_is_answered() -> None:
    run = ScriptedRun(answered("yes"), cuts=[Cut(0, abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL"))])
    _, terminal = await chat(run, "one", "two")
    assert terminal.lines == ["you> one", "✗ QUEUE_FULL: scripted", "you> two", "yes"]


async def test_a_lost_connection_is_shown_and_mended() -> None:
    run = ScriptedRun(answered("It is ", "391."), cuts=[Cut(3, abort(grpc.StatusCode.UNAVAILABLE))])
    _, terminal = await chat(run, "one")
    assert terminal.lines == ["you> one", "reconnecting…", "It is 391."]
    assert terminal.live[:2] == ["", "It is"]


async def test_ctrl_c_stops_the_answer_and_the_conversation_goes_on() -> None:
    run = ScriptedRun(answered("It is ", "391."), cuts=[Cut(3, pressing(1, abort(grpc.StatusCode.UNAVAILABLE)))])
    _, terminal = await chat(run, "one", "two")
    assert terminal.lines[:4] == ["you> one", "stopping…", "reconnecting…", "It is 391."]
    assert terminal.lines[4:] == ["stopped", "you> two", "It is 391."]
    assert [call.method for call in run.calls].count("CancelRun") == 1
    assert conversations_of(run) == ["", "conversation-1"]


async def test_a_second_ctrl_c_leaves_the_run_to_itself_and_says_how_to_come_back() -> None:
    run = ScriptedRun(answered("It is ", "391."), cuts=[Cut(3, pressing(2, hang))])
    _, terminal = await chat(run, "one", "two")
    assert terminal.lines[:4] == [
        *("you> one", "stopping…", "It is"),
        "left alone; the run goes on, and this shows it: parley -r conversation-1",
    ]


async def test_what_is_sent_while_an_answer_comes_is_queued_by_the_server_and_answered_in_order() -> None:
    run = ScriptedRun(answered("It is ", "391."), cuts=[Cut(3, pausing(0.25))])
    _, terminal = await chat(run, "one", "two", "three", pause_s=0.08, stay_s=1.5)
    assert terminal.lines == [
        *("you> one", "reconnecting…", "It is 391."),
        *("you> two", "It is 391."),
        *("you> three", "It is 391."),
    ]
    assert terminal.queued == [[], ["two"], ["two", "three"], ["three"], []]
    announced = [call.request_id for call in run.calls if call.method == "StartRun"]
    performed = [call.request_id for call in run.calls if call.method == "RunAgent"]
    assert announced == performed[1:]
    assert conversations_of(run) == ["", "conversation-1", "conversation-1"]


async def test_a_conversation_is_not_left_while_an_answer_comes() -> None:
    run = ScriptedRun(answered("It is ", "391."), cuts=[Cut(3, pausing(0.25))])
    _, terminal = await chat(run, "one", "/new", "two", pause_s=0.08, stay_s=1.5)
    assert terminal.lines[1] == "an answer is under way: wait for it, or stop it with Ctrl-C"
    assert conversations_of(run) == ["", "conversation-1"]


async def test_leaving_in_the_middle_leaves_what_there_is_of_the_answer() -> None:
    run = ScriptedRun(answered("It is ", "391."), cuts=[Cut(3, hang)])
    code, terminal = await chat(run, "one")
    assert (code, terminal.lines) == (ExitCode.OK, ["you> one", "It is"])
    assert "CancelRun" not in [call.method for call in run.calls]
