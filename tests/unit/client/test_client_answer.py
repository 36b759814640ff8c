"""The text of a run, from its events."""

from parley.v1.run_event_pb2 import (
    AttemptRestarted,
    HistoryTruncated,
    MessageCompleted,
    RunEvent,
    RunFinished,
    TextDelta,
)
from parley.v1.run_pb2 import Run
from parley_client.answer import Answer


def text_after(*events: RunEvent) -> str:
    answer = Answer()
    for event in events:
        answer.add(event)
    return answer.text


def delta(item_id: str, text: str) -> RunEvent:
    return RunEvent(item_id=item_id, text_delta=TextDelta(text=text))


def completed(item_id: str, text: str) -> RunEvent:
    return RunEvent(item_id=item_id, message_completed=MessageCompleted(text=text))


def finished(output_item_id: str) -> RunEvent:
    return RunEvent(run_finished=RunFinished(output_item_id=output_item_id))


def test_while_the_run_goes_on_it_is_the_item_that_came_last() -> None:
    assert text_after() == ""
    assert text_after(delta("1", "Let me "), delta("1", "see."), delta("2", "39")) == "39"


def test_in_the_end_it_is_the_item_that_the_run_names() -> None:
    events = (completed("1", "Let me see."), completed("2", "391"), completed("3", "Bye."))
    assert text_after(*events, finished("2")) == "391"
    assert text_after(*events, finished("")) == "Bye."


def test_what_a_new_attempt_discards_is_gone() -> None:
    restarted = RunEvent(attempt_restarted=AttemptRestarted(discarded_item_ids=["2"]))
    assert text_after(delta("1", "Let me see."), delta("2", "3"), restarted) == "Let me see."
    assert text_after(delta("2", "3"), restarted, delta("2", "391")) == "391"


def test_the_json_of_the_answer_is_that_of_the_item_that_the_run_names() -> None:
    answer = Answer()
    for item_id, text in (("1", "{"), ("2", "{}")):
        fitting = MessageCompleted(text=text, output_json=text if item_id == "2" else "")
        answer.add(RunEvent(item_id=item_id, message_completed=fitting))
        assert answer.output_json == ""
    answer.add(finished("2"))
    assert answer.output_json == "{}"


def test_a_folded_log_leaves_the_runs_own_json() -> None:
    answer = Answer()
    answer.add(RunEvent(history_truncated=HistoryTruncated(run=Run(output_text="x", output_json="{}"))))
    answer.add(finished("2"))
    assert answer.output_json == "{}"


def test_a_folded_log_leaves_the_runs_own_text() -> None:
    truncated = RunEvent(history_truncated=HistoryTruncated(run=Run(output_text="391")))
    assert text_after(truncated) == "391"
    assert text_after(truncated, completed("2", "391"), finished("2")) == "391"
    assert text_after(delta("1", "x"), truncated, finished("2")) == "391"
