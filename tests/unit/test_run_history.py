"""The checker of run histories catches what must not be: each fault planted in a history that is sound without it."""

from collections.abc import Callable

import pytest
from parley.v1.run_event_pb2 import (
    AttemptRestarted,
    MessageCompleted,
    RunAccepted,
    RunEvent,
    RunFinished,
    RunStarted,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
)
from parley.v1.run_pb2 import RUN_STATE_SUCCEEDED, STOP_REASON_ANSWERED
from run_history import check_run, text_of


def sound() -> list[RunEvent]:
    """Two attempts: a cut item is discarded, a call that was open is answered by the second."""
    events = [
        RunEvent(run_accepted=RunAccepted()),
        RunEvent(run_started=RunStarted()),
        RunEvent(item_id="c", tool_call_started=ToolCallStarted(call_id="1")),
        RunEvent(item_id="a", text_delta=TextDelta(text="Half")),
        RunEvent(attempt_restarted=AttemptRestarted(attempt=2, discarded_item_ids=["a"], reason="SERVER_RESTARTED")),
        RunEvent(item_id="c", tool_call_finished=ToolCallFinished(call_id="1")),
        RunEvent(item_id="b", text_delta=TextDelta(text="Whole")),
        RunEvent(item_id="b", message_completed=MessageCompleted(text="Whole")),
        RunEvent(run_finished=RunFinished(state=RUN_STATE_SUCCEEDED, stop_reason=STOP_REASON_ANSWERED)),
    ]
    for seq, event in enumerate(events, 1):
        event.seq = seq
        event.attempt = 1 if seq < 5 else 2
    return events


def test_a_sound_history_passes_and_its_text_is_what_was_kept() -> None:
    check_run(sound())
    assert text_of(sound()) == "Whole"


def _drop(place: int) -> Callable[[list[RunEvent]], None]:
    def fault(events: list[RunEvent]) -> None:
        del events[place]
        for seq, event in enumerate(events, 1):
            event.seq = seq

    return fault


def _set(place: int, change: RunEvent) -> Callable[[list[RunEvent]], None]:
    def fault(events: list[RunEvent]) -> None:
        events[place].MergeFrom(change)

    return fault


def _discard_nothing(events: list[RunEvent]) -> None:
    del events[4].attempt_restarted.discarded_item_ids[:]


@pytest.mark.parametrize(
    "fault",
    [
        _drop(4),
        _drop(5),
        _drop(7),
        _drop(8),
        _set(3, RunEvent(seq=9)),
        _set(5, RunEvent(attempt=3)),
        _set(4, RunEvent(attempt_restarted=AttemptRestarted(attempt=3))),
        _set(4, RunEvent(attempt_restarted=AttemptRestarted(discarded_item_ids=["b"]))),
        _set(6, RunEvent(item_id="a")),
        _set(7, RunEvent(item_id="a")),
        _set(7, RunEvent(message_completed=MessageCompleted(text="Hole"))),
        _discard_nothing,
    ],
    ids=[
        "an attempt without its event",
        "a call without a result",
        "an item left open",
        "no end",
        "a gap",
        "an attempt from nowhere",
        "a number left out",
        "an item discarded that was not open",
        "text of a discarded item",
        "a discarded item completed",
        "another text",
        "an open item kept",
    ],
)
def test_a_fault_is_caught(fault: Callable[[list[RunEvent]], None]) -> None:
    events = sound()
    fault(events)
    with pytest.raises(AssertionError):
        check_run(events)
