"""The transcript closes whatever is open, so that any prefix of a run can be ended as the contract promises."""

import json
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from parley.v1 import agent_service_pb2
from parley_server.domain.message import AssistantItem, SummaryItem, ToolCallItem
from parley_server.domain.run import RunEnd, RunState, StopReason
from parley_server.domain.run_event import (
    EventBody,
    HistoryCompacted,
    MessageCompleted,
    ReasoningCompleted,
    ReasoningDelta,
    RunAccepted,
    RunEvent,
    RunFinished,
    RunStarted,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageUpdated,
)
from parley_server.domain.tool import ToolCallStatus, ToolEffect
from parley_server.domain.usage import Usage
from parley_server.rpc.mapping.run_event import ProtoEventCodec
from parley_server.runs.transcript import RunTranscript
from run_history import check_run

_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
END = RunEnd(RunState.CANCELLED, StopReason.CANCEL_REQUESTED)

WHOLE_RUN: list[tuple[EventBody, str]] = [
    (RunAccepted("assistant", "msg", 0), ""),
    (RunStarted("m"), ""),
    (ReasoningDelta("hm, "), "a"),
    (ReasoningDelta("well"), "a"),
    (ReasoningCompleted("hm, well"), "a"),
    (TextDelta("Let me "), "a"),
    (TextDelta("look."), "a"),
    (MessageCompleted("Let me look."), "a"),
    (UsageUpdated(Usage(output_tokens=3)), ""),
    (ToolCallStarted("c1", "read", "{}", ToolEffect.READ), "b"),
    (ToolCallStarted("c2", "write", "{}", ToolEffect.WRITE), "c"),
    (ToolCallFinished("c2", "write", ToolCallStatus.OK, "2"), "c"),
    (ToolCallFinished("c1", "read", ToolCallStatus.OK, "1"), "b"),
    (HistoryCompacted("They met.", "item_1", "item_2"), "s"),
    (TextDelta("Found it."), "d"),
    (MessageCompleted("Found it."), "d"),
]


def observed(steps: list[tuple[EventBody, str]]) -> RunTranscript:
    transcript = RunTranscript()
    for body, item_id in steps:
        transcript.observe(body, item_id)
    return transcript


@given(cut=st.integers(2, len(WHOLE_RUN)))
def test_any_prefix_ends_as_the_contract_promises(cut: int) -> None:
    transcript = observed(WHOLE_RUN[:cut])
    closing = transcript.closing_events()
    steps = [*WHOLE_RUN[:cut], *closing, (RunFinished(END, Usage()), "")]
    encoded = [
        ProtoEventCodec().encode(RunEvent("run", "conv", seq, _EPOCH, 1, item_id, body))
        for seq, (body, item_id) in enumerate(steps, 1)
    ]
    check_run([agent_service_pb2.WatchRunResponse.FromString(payload).event for payload in encoded])
    for body, item_id in closing:
        transcript.observe(body, item_id)
    assert transcript.closing_events() == []


def test_a_whole_run_becomes_messages_in_the_order_of_its_items() -> None:
    conclusion = observed(WHOLE_RUN).conclusion(END)
    assert [finished.message_id for finished in conclusion.items] == ["a", "b", "c", "s", "d"]
    first, second = conclusion.items[:2]
    assert first.item == AssistantItem("Let me look.", reasoning_text="hm, well")
    assert isinstance(second.item, ToolCallItem)
    assert second.item.result_json == "1"
    assert conclusion.items[3].item == SummaryItem("item_1", "item_2", "They met.")
    assert (conclusion.output_item_id, conclusion.output_text) == ("d", "Found it.")
    assert conclusion.usage == Usage(output_tokens=3)


def test_a_write_that_was_dispatched_is_of_unknown_outcome_and_others_count_as_cancelled() -> None:
    transcript = observed(WHOLE_RUN[:11])
    planned = {body.name: body for body, _ in transcript.closing_events() if isinstance(body, ToolCallFinished)}
    assert {name: body.status for name, body in planned.items()} == dict.fromkeys(
        ("read", "write"), ToolCallStatus.CANCELLED
    )
    transcript.observe_dispatch(["c1", "c2"])
    statuses = {body.name: body for body, _ in transcript.closing_events() if isinstance(body, ToolCallFinished)}
    assert statuses["read"].status is ToolCallStatus.CANCELLED
    assert statuses["write"].status is ToolCallStatus.UNKNOWN_OUTCOME
    assert json.loads(statuses["write"].result_json)["error"]["code"] == "unknown_outcome"


def test_a_cut_text_stays_marked_as_incomplete() -> None:
    transcript = observed(WHOLE_RUN[:6])
    for body, item_id in transcript.closing_events():
        transcript.observe(body, item_id)
    (kept,) = transcript.conclusion(END).items
    assert kept.incomplete
    assert kept.item == AssistantItem("Let me ", reasoning_text="hm, well")
