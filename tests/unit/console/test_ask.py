"""`parley ask` against a scripted server: what lands where, and the exit code."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from google.protobuf.json_format import Parse
from parley.v1.run_event_pb2 import RunEvent, RunFinished
from parley.v1.run_pb2 import RUN_STATE_CANCELLED, STOP_REASON_CANCEL_REQUESTED
from parley_client import ParleyClient, ReconnectLimits
from parley_console.ask import Form, Question, ask
from unit.client.event_log import answered, failed, numbered
from unit.client.scripted_server import Context, Cut, Ending, ScriptedRun, abort, hang, serving

HASTY = ReconnectLimits(connect_for_s=0.3, reconnect_for_s=0.3, first_delay_s=0.001)
GO = Question("go")


@asynccontextmanager
async def client_of(run: ScriptedRun) -> AsyncIterator[ParleyClient]:
    async with serving(run) as address, ParleyClient(address, "", reconnect=HASTY) as client:
        yield client


async def test_the_answer_alone_is_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    async with client_of(ScriptedRun(answered("It is ", "391."))) as client:
        assert await ask(client, GO, Form.TEXT) == 0
    assert capsys.readouterr() == ("It is 391.\n", "")


async def test_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    log = answered("größer")
    log[-1].run_finished.usage.input_tokens = 2**60
    async with client_of(ScriptedRun(log)) as client:
        assert await ask(client, GO, Form.OBJECT) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out) == {
        "run_id": "run-1",
        "conversation_id": "conversation-1",
        "state": "RUN_STATE_SUCCEEDED",
        "stop_reason": "STOP_REASON_ANSWERED",
        "output_text": "größer",
        "output": None,
        "usage": {
            "input_tokens": 2**60,
            "cached_input_tokens": 0,
            "output_tokens": 0,
            "reasoning_tokens": 0,
            "model_calls": 0,
            "tool_calls": 0,
            "currency_code": "",
        },
        "error": None,
    }
    assert out.count("\n") == 1


async def test_stream_json_is_a_line_for_every_event(capsys: pytest.CaptureFixture[str]) -> None:
    run = ScriptedRun(answered("two\nlines"))
    async with client_of(run) as client:
        assert await ask(client, GO, Form.EVENT_LINES) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [Parse(line, RunEvent()) for line in lines] == run.log
    assert json.loads(lines[0])["seq"] == "1"


@pytest.mark.parametrize("form", list(Form))
async def test_a_failed_run_is_one_line_on_standard_error(form: Form, capsys: pytest.CaptureFixture[str]) -> None:
    async with client_of(ScriptedRun(failed("MODEL_UNAVAILABLE", "no model"))) as client:
        assert await ask(client, GO, form) == 1
    out, err = capsys.readouterr()
    assert err == "parley: the run failed: MODEL_UNAVAILABLE: no model\n"
    if form is Form.TEXT:
        assert out == ""
    if form is Form.OBJECT:
        assert json.loads(out)["error"] == {
            "code": "UNAVAILABLE",
            "reason": "MODEL_UNAVAILABLE",
            "message": "no model",
        }


@pytest.mark.parametrize(
    ("ending", "exit_code"),
    [
        (abort(grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID"), 77),
        (abort(grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND"), 64),
        (abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL"), 75),
        (abort(grpc.StatusCode.INTERNAL, "INTERNAL_ERROR"), 70),
    ],
)
async def test_a_refused_call_has_its_exit_code(
    ending: Ending, exit_code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async with client_of(ScriptedRun(cuts=[Cut(0, ending)])) as client:
        assert await ask(client, GO, Form.OBJECT) == exit_code
    out, err = capsys.readouterr()
    assert err.startswith("parley: ")
    assert json.loads(out)["run_id"] == ""
    assert json.loads(out)["error"]["message"] == "scripted"


async def test_a_server_lost_for_good_is_told_with_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    cuts = [Cut(3, abort(grpc.StatusCode.UNAVAILABLE))] + [Cut(0, abort(grpc.StatusCode.UNAVAILABLE))] * 1000
    async with client_of(ScriptedRun(answered("It is ", "391."), cuts)) as client:
        assert await ask(client, GO, Form.TEXT) == 69
    out, err = capsys.readouterr()
    assert out == "It is \n"
    assert err.endswith("; run run-1 may go on\n")


async def test_a_broken_connection_does_not_show_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    cuts = [Cut(3, abort(grpc.StatusCode.UNAVAILABLE)), Cut(1, abort(grpc.StatusCode.UNAVAILABLE))]
    async with client_of(ScriptedRun(answered("It ", "is ", "391."), cuts)) as client:
        assert await ask(client, GO, Form.TEXT) == 0
    assert capsys.readouterr() == ("It is 391.\n", "")


def cancelled_log() -> list[RunEvent]:
    ended = RunFinished(state=RUN_STATE_CANCELLED, stop_reason=STOP_REASON_CANCEL_REQUESTED)
    return numbered([*answered("It is ")[:3], RunEvent(run_finished=ended)])


async def interrupt(context: Context) -> None:  # noqa: ARG001 - an Ending
    """Press Ctrl-C, and break the stream a little later."""
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.sleep(0.1)


async def test_ctrl_c_cancels_the_run_and_waits_for_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    run = ScriptedRun(cancelled_log(), cuts=[Cut(3, interrupt)])
    async with client_of(run) as client:
        assert await ask(client, GO, Form.TEXT) == 130
    assert capsys.readouterr() == ("It is \n", "")
    assert [call.method for call in run.calls if call.method == "CancelRun"] == ["CancelRun"]
    assert run.attachments[-1] == ("WatchRun", 3)


async def test_ctrl_c_does_not_wait_for_ever(capsys: pytest.CaptureFixture[str]) -> None:
    async def interrupt_and_hang(context: Context) -> None:
        await interrupt(context)
        await hang(context)

    async with client_of(ScriptedRun(answered("a"), cuts=[Cut(3, interrupt_and_hang)])) as client:
        assert await ask(client, GO, Form.TEXT, patience_s=0.3) == 130
    assert capsys.readouterr().err == "parley: the run goes on without you: run-1\n"


async def test_a_second_ctrl_c_leaves_at_once() -> None:
    async def interrupt_twice(context: Context) -> None:
        await interrupt(context)
        await interrupt(context)
        await hang(context)

    async with client_of(ScriptedRun(answered("a"), cuts=[Cut(3, interrupt_twice)])) as client:
        async with asyncio.timeout(5):
            assert await ask(client, GO, Form.TEXT) == 130
