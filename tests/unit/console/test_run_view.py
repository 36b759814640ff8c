"""A run as its user sees it."""

import grpc
from parley.v1.approval_pb2 import APPROVAL_STATE_DENIED
from parley.v1.run_event_pb2 import (
    ApprovalRequested,
    ApprovalResolved,
    AttemptRestarted,
    HistoryCompacted,
    MessageCompleted,
    ReasoningDelta,
    RunAccepted,
    RunEvent,
    RunFinished,
    RunWarning,
    TextDelta,
    ToolCallFinished,
    ToolCallProgress,
    ToolCallStarted,
    UsageUpdated,
)
from parley.v1.tool_pb2 import TOOL_CALL_STATUS_ERROR, TOOL_CALL_STATUS_OK
from parley_client import UnavailableError
from parley_console.live_display import LiveDisplay
from parley_console.plain_display import PlainDisplay
from parley_console.run_view import RunView
from unit.console.fake_terminal import pipe, plain_terminal
from unit.console.recording_terminal import RecordingTerminal

LOST = UnavailableError(grpc.StatusCode.UNAVAILABLE, "gone")


def delta(text: str, item_id: str = "item-1") -> RunEvent:
    return RunEvent(item_id=item_id, text_delta=TextDelta(text=text))


def completed(text: str, item_id: str = "item-1", refusal: str = "") -> RunEvent:
    return RunEvent(item_id=item_id, message_completed=MessageCompleted(text=text, refusal=refusal))


def started(call_id: str, expression: str) -> RunEvent:
    call = ToolCallStarted(call_id=call_id, name="calculator", arguments_json=f'{{"expression": "{expression}"}}')
    return RunEvent(tool_call_started=call)


def finished(call_id: str, value: str) -> RunEvent:
    return RunEvent(
        tool_call_finished=ToolCallFinished(
            call_id=call_id, name="calculator", status=TOOL_CALL_STATUS_OK, result_json=f'"{value}"'
        )
    )


def progress(call_id: str, message: str, fraction: float | None = None) -> RunEvent:
    return RunEvent(tool_call_progress=ToolCallProgress(call_id=call_id, message=message, fraction=fraction))


END = RunEvent(run_finished=RunFinished())


def on_one_terminal(*events: RunEvent) -> str:
    screen, stream = plain_terminal()
    view = RunView(PlainDisplay(screen, screen, screen))
    for event in events:
        view.show(event)
    return stream.getvalue()


def on_pipe_and_terminal(*events: RunEvent) -> tuple[str, str]:
    (answer, answers), (beside, notes) = pipe(), plain_terminal()
    view = RunView(PlainDisplay(answer, beside, beside))
    for event in events:
        view.show(event)
    return answers.getvalue(), notes.getvalue()


def test_text_comes_as_it_streams_and_ends_with_one_newline() -> None:
    assert on_one_terminal(delta("It is "), delta("391."), completed("It is 391."), END) == "It is 391.\n"
    assert on_one_terminal(delta("391\n"), completed("391\n"), END) == "391\n"
    assert on_one_terminal(END) == ""


def test_a_tool_call_is_one_line() -> None:
    assert on_one_terminal(
        delta("Let me see."), completed("Let me see."), started("1", "17 * 23"), finished("1", "391"), delta("391", "2")
    ) == ('Let me see.\n⚙ calculator(expression="17 * 23") → 391\n391')


def test_calls_side_by_side_keep_their_lines() -> None:
    assert on_one_terminal(started("1", "1+1"), started("2", "2+2"), finished("1", "2"), finished("2", "4")) == (
        '⚙ calculator(expression="1+1") …\n'
        '⚙ calculator(expression="2+2") …\n'
        '⚙ calculator(expression="1+1") → 2\n'
        '⚙ calculator(expression="2+2") → 4\n'
    )


def test_a_call_on_a_terminal_shows_how_far_it_is_on_its_own_line() -> None:
    events = [started("1", "1+1"), progress("1", "a"), progress("1", "b", 0.5), finished("1", "2")]
    call = '⚙ calculator(expression="1+1")'
    assert on_one_terminal(*events) == f"{call}\r{call} … a\x1b[K\r{call} … 50% b\x1b[K\r{call}\x1b[K → 2\n"
    warned = RunEvent(warning=RunWarning(reason="MODEL_FALLBACK", message="b"))
    assert on_one_terminal(events[0], events[1], warned) == (
        f"{call}\r{call} … a\x1b[K\r{call}\x1b[K …\nMODEL_FALLBACK: b\n"
    )
    assert on_one_terminal(events[0], started("2", "2+2"), events[1]).count(" … a") == 0
    answer, notes = on_pipe_and_terminal(*events)
    assert (answer, notes.count("\n")) == ("", 1)


def test_progress_never_needs_a_second_row() -> None:
    told = on_one_terminal(started("1", "1+1"), progress("1", "数" * 100))
    assert told.endswith("数\x1b[K")
    assert told.count("数") == 22
    assert "…" not in on_one_terminal(started("1", "1" * 70), progress("1", "a"))


def test_a_call_that_fails_says_so() -> None:
    failed = RunEvent(
        tool_call_finished=ToolCallFinished(
            call_id="1", name="calculator", status=TOOL_CALL_STATUS_ERROR, error_message="no number"
        )
    )
    assert on_one_terminal(started("1", "x"), failed) == '⚙ calculator(expression="x") ✗ ERROR: no number\n'


def test_a_pipe_gets_the_answer_alone() -> None:
    answer, notes = on_pipe_and_terminal(
        delta("It "),
        RunEvent(warning=RunWarning(reason="MODEL_CALL_RETRIED", message="again")),
        delta("is "),
        delta("391."),
        completed("It is 391."),
        END,
    )
    assert answer == "It is 391.\n"
    assert notes == "MODEL_CALL_RETRIED: again\n"


def test_a_summary_of_what_was_said_before_is_a_note() -> None:
    compacted = RunEvent(item_id="item-0", history_compacted=HistoryCompacted(summary_text="They met."))
    answer, notes = on_pipe_and_terminal(compacted, delta("391."), completed("391."), END)
    assert answer == "391.\n"
    assert notes == "earlier messages were summarized\n"


def test_items_stand_on_lines_of_their_own() -> None:
    answer, notes = on_pipe_and_terminal(
        delta("Wait."), completed("Wait."), started("1", "1+1"), finished("1", "2"), delta("2", "item-2"), END
    )
    assert answer == "Wait.\n2\n"
    assert notes == '⚙ calculator(expression="1+1") → 2\n'


def test_what_the_deltas_left_out_is_taken_from_the_whole() -> None:
    assert on_one_terminal(completed("never streamed"), END) == "never streamed\n"
    assert on_one_terminal(delta("only the "), completed("only the beginning"), END) == "only the beginning\n"


def test_a_refusal_is_shown() -> None:
    assert on_one_terminal(completed("", refusal="I won't."), END) == "the model refused: I won't.\n"


def test_a_run_taken_up_again_says_that_the_answer_begins_anew() -> None:
    again = RunEvent(attempt_restarted=AttemptRestarted(attempt=2, discarded_item_ids=["item-1"]))
    assert on_one_terminal(delta("Half an ans"), again, delta("A whole one.", "item-2"), END) == (
        "Half an ans\nthe run was taken up again; the answer begins anew\nA whole one.\n"
    )
    assert on_one_terminal(again) == "the run was taken up again\n"
    answer, _ = on_pipe_and_terminal(delta("Half"), again, delta("A whole"), delta(" one."), END)
    assert answer == "Half\nA whole one.\n"


def test_the_queue_is_told() -> None:
    assert on_one_terminal(RunEvent(run_accepted=RunAccepted(queue_position=2))) == (
        "waiting for 2 earlier run(s) of this conversation\n"
    )


def test_a_call_says_that_it_waits_until_its_approval_is_settled() -> None:
    terminal = RecordingTerminal()
    view = RunView(LiveDisplay(terminal))
    view.show(started("1", "1+1"))
    view.show(RunEvent(approval_requested=ApprovalRequested(approval_id="a", call_id="1", tool_name="calculator")))
    assert terminal.live[-1] == '⚙ calculator(expression="1+1") … waits for your approval'
    denied = ApprovalResolved(approval_id="a", call_id="1", state=APPROVAL_STATE_DENIED, reason="no\x1b[2J sums")
    view.show(RunEvent(approval_resolved=denied))
    assert terminal.live[-1] == '⚙ calculator(expression="1+1") …'
    assert terminal.lines == [r"calculator denied: no\x1b[2J sums"]


def test_a_lost_connection_is_told_once_per_break() -> None:
    screen, stream = plain_terminal()
    view = RunView(PlainDisplay(screen, screen, screen))
    view.show(delta("It "))
    view.reconnecting(LOST, 0.1)
    view.reconnecting(LOST, 0.2)
    view.show(delta("is"))
    view.reconnecting(LOST, 0.1)
    assert stream.getvalue() == "It \nreconnecting…\nis\nreconnecting…\n"


def test_a_cancel_that_fails_is_told_on_the_errors_screen() -> None:
    (answer, answers), (errors, complaints) = pipe(), plain_terminal()
    RunView(PlainDisplay(answer, pipe()[0], errors)).could_not_cancel(LOST)
    assert (answers.getvalue(), complaints.getvalue()) == ("", "the run could not be cancelled: UNAVAILABLE: gone\n")


def test_kinds_that_mean_nothing_to_a_reader_are_passed_by() -> None:
    assert (
        on_one_terminal(
            RunEvent(), RunEvent(reasoning_delta=ReasoningDelta(text="hm")), RunEvent(usage_updated=UsageUpdated())
        )
        == ""
    )
