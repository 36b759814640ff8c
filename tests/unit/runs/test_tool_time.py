"""For how long the tools of a run were at work, as its log tells."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from parley_server.domain.run_event import (
    AttemptRestarted,
    EventBody,
    RunEvent,
    RunResumed,
    RunStarted,
    RunWaiting,
    ToolCallFinished,
    ToolCallStarted,
)
from parley_server.domain.tool import ToolCallStatus, ToolEffect
from parley_server.runs.tool_time import tool_time_s

BEGUN = datetime(2026, 11, 23, tzinfo=UTC)
Log = Sequence[tuple[float, EventBody]]


def begins(call_id: str) -> EventBody:
    return ToolCallStarted(call_id, "look", "{}", ToolEffect.READ)


def ends(call_id: str) -> EventBody:
    return ToolCallFinished(call_id, "look", ToolCallStatus.OK, "{}")


def events(log: Log) -> list[RunEvent]:
    return [
        RunEvent("run_1", "conv_1", seq, BEGUN + timedelta(seconds=at_s), 1, "item", body)
        for seq, (at_s, body) in enumerate(log, 1)
    ]


@pytest.mark.parametrize(
    ("log", "total_s"),
    [
        ([], 0),
        ([(0, RunStarted("m")), (5, begins("a"))], 0),
        ([(0, RunStarted("m")), (5, begins("a")), (7, ends("a")), (60, begins("b")), (61, ends("b"))], 3),
        ([(0, begins("a")), (0, begins("b")), (4, ends("a")), (6, ends("b")), (99, RunStarted("m"))], 6),
        ([(0, begins("a")), (3, AttemptRestarted(2, (), "X")), (5, ends("a"))], 2),
        ([(0, begins("a")), (2, RunWaiting(("p",))), (900, RunResumed()), (901, ends("a"))], 3),
        ([(9, begins("a")), (8, ends("a"))], 0),
    ],
    ids=["nothing", "nothing yet", "one after the other", "at once", "over a crash", "waiting", "a clock set back"],
)
def test_time_counts_while_calls_are_under_way_and_somebody_is_at_work(log: Log, total_s: float) -> None:
    assert tool_time_s(events(log)) == total_s
