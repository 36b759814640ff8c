"""`parley ask`: one question, one answer, and an exit code for scripts."""

import asyncio
import sys
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from parley.v1.run_pb2 import STOP_REASON_APPROVAL_NEEDED
from parley_client import ParleyClient, ParleyError, RunStream

from parley_console.answer_output import EventLinesOutput, JsonAnswerOutput, ObjectOutput, TextOutput
from parley_console.approval_questions import ApprovalQuestions
from parley_console.connecting import client_for
from parley_console.connection import Connection
from parley_console.early_reader import unless_reader_left
from parley_console.exit_codes import ExitCode
from parley_console.failure_text import call_failure, run_failure, shortfall
from parley_console.following import Ending, follow
from parley_console.interrupts import Sigint, cancelling_this_task
from parley_console.outcome import exit_code_of_run, exit_code_of_status
from parley_console.plain_asker import PlainAsker
from parley_console.plain_display import PlainDisplay
from parley_console.recent import last_conversation_id
from parley_console.run_view import RunView
from parley_console.screen import Nowhere, Screen, Style
from parley_console.unattended import POLICIES, EventListener, OnApproval, WaitingNotices


class Form(Enum):
    """How the answer is written."""

    TEXT = auto()
    OBJECT = auto()
    EVENT_LINES = auto()


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, of whom, and for how long; `deadline_s` None leaves that to the server.

    `output_schema` is the JSON Schema that the answer has to fit; empty: any answer. `on_approval` is what is done when
    a tool call needs an approval; None: a user at a terminal is asked, and elsewhere the run fails.
    """

    text: str
    agent: str = ""
    deadline_s: float | None = None
    continue_last: bool = False
    conversation_id: str = ""
    output_schema: str = ""
    on_approval: OnApproval | None = None


def run_ask(connection: Connection, question: Question, form: Form) -> ExitCode:
    """Connect, ask and disconnect; returns the exit code.

    A reader that goes away early, as `head` does, is no failure.
    """

    async def ask_connected() -> ExitCode:
        async with client_for(connection) as client:
            return await ask(client, question, form)

    return unless_reader_left(lambda: asyncio.run(ask_connected()))


async def ask(client: ParleyClient, question: Question, form: Form, patience_s: float = 15.0) -> ExitCode:
    """Ask over an open client; standard output gets the answer, standard error all the rest.

    After Ctrl-C the run has `patience_s` to end.

    Raises BrokenPipeError when nobody reads the answer any more.
    """
    errors = Screen(sys.stderr)
    display = PlainDisplay(
        answer=Screen(sys.stdout) if form is Form.TEXT and not question.output_schema else Nowhere(),
        progress=errors if errors.is_terminal else Nowhere(),
        errors=errors,
    )
    view = RunView(display)
    kind = JsonAnswerOutput if question.output_schema and form is Form.TEXT else _OUTPUT_OF_FORM[form]
    output = kind(view, _listener(client, display, errors))
    sigint = Sigint()
    stream: RunStream | None = None
    try:
        with sigint.installed(), sigint.heard_by(cancelling_this_task()):
            stream = await _start(client, question, view)
            ending = await follow(stream, output, sigint, patience_s)
    except ParleyError as error:
        output.finish(stream, error)
        errors.line(f"parley: {call_failure(error, client.target, stream)}", Style.RED)
        return exit_code_of_status(error.code)
    except asyncio.CancelledError:
        return ExitCode.CANCELLED
    output.finish(stream)
    code = _conclude(stream, ending, errors)
    # An answer without what was asked for is none, though the run counts it for one: it was cut or refused.
    return ExitCode.RUN_FAILED if code is ExitCode.OK and question.output_schema and not stream.output_json else code


_OUTPUT_OF_FORM: Final = {Form.TEXT: TextOutput, Form.OBJECT: ObjectOutput, Form.EVENT_LINES: EventLinesOutput}


def _user_is_there() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def _listener(client: ParleyClient, display: PlainDisplay, errors: Screen) -> EventListener:
    """Choose who deals with approvals that the run waits for."""
    if _user_is_there():
        return ApprovalQuestions(client, PlainAsker(display, sys.stdin), "the run waits; parley approvals answers it")
    return WaitingNotices(errors)


async def _start(client: ParleyClient, question: Question, view: RunView) -> RunStream:
    conversation_id = question.conversation_id
    if question.continue_last and not conversation_id:
        conversation_id = await last_conversation_id(client)
    on_approval = question.on_approval or (OnApproval.WAIT if _user_is_there() else OnApproval.FAIL)
    return client.run(
        question.text,
        agent=question.agent,
        conversation_id=conversation_id,
        deadline_s=question.deadline_s,
        output_schema=question.output_schema,
        unattended_policy=POLICIES[on_approval],
        on_reconnect=view.reconnecting,
    )


def _conclude(stream: RunStream, ending: Ending, errors: Screen) -> ExitCode:
    """Say on standard error what the answer does not, and choose the exit code."""
    if ending is Ending.DETACHED:
        errors.line(f"parley: the run goes on without you: {stream.run_id or 'not accepted yet'}")
    if ending is not Ending.FINISHED or stream.finished is None:
        return ExitCode.CANCELLED
    trouble = run_failure(stream) or shortfall(stream)
    if stream.finished.stop_reason == STOP_REASON_APPROVAL_NEEDED:
        trouble += "; with --approvals wait it waits for your answer"
    if trouble:
        errors.line(f"parley: {trouble}", Style.RED)
    return exit_code_of_run(stream.finished.state)
