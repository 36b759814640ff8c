"""Run events: the bytes that are stored and sent say the same as the domain's events, and come back as they were."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parley.v1 import agent_service_pb2 as pb
from parley.v1 import run_pb2
from parley_server.domain.approval import ApprovalState
from parley_server.domain.content import ImagePart, TextPart
from parley_server.domain.errors import ErrorKind, ErrorStatus, Reason
from parley_server.domain.run import TERMINAL_STATES, RunEnd, RunState, StopReason
from parley_server.domain.run_event import (
    ApprovalRequested,
    ApprovalResolved,
    AttemptRestarted,
    EventBody,
    MessageCompleted,
    ReasoningCompleted,
    ReasoningDelta,
    RunAccepted,
    RunEvent,
    RunFinished,
    RunResumed,
    RunStarted,
    RunWaiting,
    SteerApplied,
    TextDelta,
    ToolCallFinished,
    ToolCallProgress,
    ToolCallStarted,
    UsageUpdated,
    Warned,
)
from parley_server.domain.tool import ToolCallStatus, ToolEffect
from parley_server.domain.usage import Usage
from parley_server.rpc.mapping.run_event import ProtoEventCodec

CODEC = ProtoEventCodec()
NOW = datetime(2026, 11, 22, 10, 0, 0, 123456, tzinfo=UTC)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
counts = st.integers(0, 2**31)
costs = st.tuples(st.integers(0, 2**63 - 1), st.just("EUR")) | st.just((None, ""))
usages = st.builds(
    lambda six, cost: Usage(*six, *cost), st.tuples(counts, counts, counts, counts, counts, counts), costs
)
codes = st.from_regex(r"[a-z_]{0,9}", fullmatch=True)
details = st.dictionaries(texts, texts, max_size=4)
waits = st.none() | st.integers(0, 3_600_000).map(lambda milliseconds: milliseconds / 1000)
errors = st.builds(ErrorStatus, st.sampled_from(ErrorKind), st.sampled_from(Reason), texts, details, waits)
ends = st.builds(RunEnd, st.sampled_from(sorted(TERMINAL_STATES)), st.sampled_from(StopReason), st.none() | errors)
images = st.builds(ImagePart, texts, uri=texts.filter(bool)) | st.builds(
    ImagePart, texts, content=st.binary(max_size=9)
)
parts = st.builds(TextPart, texts) | images
moments = st.datetimes(timezones=st.just(UTC))
bodies = st.one_of(
    st.builds(RunAccepted, texts, texts, counts),
    st.builds(RunStarted, texts),
    st.builds(AttemptRestarted, counts, st.lists(texts, max_size=3).map(tuple), texts),
    st.builds(TextDelta, texts),
    st.builds(ReasoningDelta, texts),
    st.builds(ReasoningCompleted, texts),
    st.builds(MessageCompleted, texts, st.booleans(), texts, texts),
    st.builds(ToolCallStarted, texts, texts, texts, st.none() | st.sampled_from(ToolEffect)),
    st.builds(ToolCallProgress, texts, texts, st.none() | st.floats(0, 1)),
    st.builds(
        ToolCallFinished,
        texts,
        texts,
        st.sampled_from(ToolCallStatus),
        texts,
        st.booleans(),
        codes,
        texts,
        texts,
        texts,
    ),
    st.builds(ApprovalRequested, texts, texts, texts, texts, moments),
    st.builds(ApprovalResolved, texts, texts, st.sampled_from(ApprovalState), texts),
    st.builds(RunWaiting, st.lists(texts, max_size=3).map(tuple)),
    st.builds(RunResumed),
    st.builds(UsageUpdated, usages),
    st.builds(Warned, texts, texts),
    st.builds(SteerApplied, texts, texts, st.lists(parts, max_size=3).map(tuple)),
    st.builds(RunFinished, ends, usages, texts, st.lists(texts, max_size=3).map(tuple)),
)


@given(body=bodies, seq=st.integers(1, 2**63), moment=moments, attempt=counts, item_id=texts)
def test_an_event_comes_back_as_it_was(body: EventBody, seq: int, moment: datetime, attempt: int, item_id: str) -> None:
    event = RunEvent("run_1", "conv_1", seq, moment, attempt, item_id, body)
    assert CODEC.decode(CODEC.encode(event)) == event


@given(body=bodies)
def test_the_bytes_are_either_rpcs_response(body: EventBody) -> None:
    event = RunEvent("run_1", "conv_1", 7, NOW, 1, "msg_1", body)
    payload = CODEC.encode(event)
    watched, ran = pb.WatchRunResponse.FromString(payload).event, pb.RunAgentResponse.FromString(payload).event
    assert watched == ran
    assert (ran.run_id, ran.conversation_id, ran.seq, ran.attempt, ran.item_id) == ("run_1", "conv_1", 7, 1, "msg_1")
    assert ran.emit_time.ToDatetime(UTC) == NOW
    assert ran.WhichOneof("event") is not None


def test_a_failed_run_tells_its_reason_on_the_wire() -> None:
    error = ErrorStatus(ErrorKind.UNAVAILABLE, Reason.MODEL_UNAVAILABLE, "no answer")
    end = RunEnd(RunState.FAILED, StopReason.ERROR, error)
    payload = CODEC.encode(RunEvent("run_1", "conv_1", 9, NOW, 1, "", RunFinished(end, Usage())))
    finished = pb.WatchRunResponse.FromString(payload).event.run_finished
    assert (finished.state, finished.stop_reason) == (run_pb2.RUN_STATE_FAILED, run_pb2.STOP_REASON_ERROR)
    assert (finished.error.code, finished.error.message) == (14, "no answer")
    assert finished.HasField("usage")


@pytest.mark.parametrize("kind", ["prompt_resolved", None])
def test_an_event_of_an_unknown_kind_becomes_a_warning(kind: str | None) -> None:
    response = pb.WatchRunResponse()
    response.event.run_id = "run_1"
    if kind is not None:
        getattr(response.event, kind).SetInParent()
    body = CODEC.decode(response.SerializeToString()).body
    assert isinstance(body, Warned)
    assert body.reason == "UNKNOWN_EVENT"
