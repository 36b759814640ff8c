"""What a client asks of a run: defaults, ceilings, and what is refused."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parley.v1 import agent_service_pb2, content_pb2, run_pb2
from parley_server.domain.content import ImagePart, TextPart
from parley_server.domain.errors import ErrorKind, ErrorStatus, FeatureNotAvailableError, InvalidRequestError, Reason
from parley_server.domain.run import (
    ConcurrencyPolicy,
    DisconnectPolicy,
    Limits,
    ModelOptions,
    Run,
    RunEnd,
    RunSpec,
    RunState,
    StopReason,
)
from parley_server.domain.usage import Usage
from parley_server.rpc.mapping.enums import RUN_STATE_NUMBERS
from parley_server.rpc.mapping.idempotency import idempotency_of
from parley_server.rpc.mapping.run import read_run_spec, write_run

KIB = 1024


def spec(*texts: str, **fields: object) -> run_pb2.RunSpec:
    message = run_pb2.RunSpec(input=[content_pb2.ContentPart(text=text) for text in texts or ("hello",)])
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def read(message: run_pb2.RunSpec, *, attached: bool = True) -> RunSpec:
    return read_run_spec(message, attached=attached)


def refused(message: run_pb2.RunSpec, *, attached: bool = True) -> dict[str, str]:
    """Return the violations of a spec that must be refused."""
    with pytest.raises(InvalidRequestError) as error:
        read(message, attached=attached)
    return {violation.field: violation.description for violation in error.value.violations}


def test_what_is_left_out_is_the_default() -> None:
    assert read(spec()) == RunSpec("", "", (TextPart("hello"),))
    assert read(spec()).concurrency_policy is ConcurrencyPolicy.QUEUE
    assert read(spec()).limits == Limits(timedelta(minutes=10), 25, 128, None)


def test_everything_that_is_said_is_read() -> None:
    message = spec("a", agent_id="x", conversation_id="c", disable_tools=True, concurrency_policy=1)
    message.allowed_tools.extend(["t"])
    message.labels["k"] = "v"
    message.input.add(image=content_pb2.Image(data=b"png", media_type="image/png"))
    message.input.add(image=content_pb2.Image(uri="https://x/y"))
    message.model_options.CopyFrom(
        run_pb2.ModelOptions(model="m", temperature=0, top_p=1, max_output_tokens=5, stop=["."], seed=0)
    )
    message.limits.CopyFrom(run_pb2.Limits(max_steps=1, max_tool_calls=0, max_output_tokens=9))
    message.limits.deadline.FromTimedelta(timedelta(hours=24))
    assert read(message) == RunSpec(
        "x",
        "c",
        (TextPart("a"), ImagePart("image/png", content=b"png"), ImagePart("", "https://x/y")),
        ModelOptions("m", 0.0, 1.0, 5, (".",), 0),
        ("t",),
        disable_tools=True,
        limits=Limits(timedelta(hours=24), 1, 0, 9),
        concurrency_policy=ConcurrencyPolicy.REJECT,
        labels={"k": "v"},
    )


def test_all_limits_above_their_ceilings_are_named() -> None:
    message = spec()
    message.limits.CopyFrom(run_pb2.Limits(max_steps=101, max_tool_calls=1001))
    message.limits.deadline.FromMilliseconds(24 * 3600 * 1000 + 1)
    assert refused(message).keys() == {"run.limits.deadline", "run.limits.max_steps", "run.limits.max_tool_calls"}


@pytest.mark.parametrize(("seconds", "nanos"), [(315_576_000_000, 999_999_999), (2**62, 0)])
def test_a_deadline_beyond_all_time_is_merely_too_long(seconds: int, nanos: int) -> None:
    message = spec()
    message.limits.deadline.seconds, message.limits.deadline.nanos = seconds, nanos
    assert refused(message).keys() == {"run.limits.deadline"}


def test_the_shortest_deadline_is_still_one() -> None:
    message = spec()
    message.limits.deadline.nanos = 1
    assert read(message).limits.deadline == timedelta(microseconds=1)


@pytest.mark.parametrize("text", [" ", "\n\t ", "\u2003", "a\0b", "\0"])
def test_blank_text_and_nul_are_named_by_their_place(text: str) -> None:
    assert refused(spec("good", text)).keys() == {"run.input[1].text"}


@given(st.lists(st.integers(1, 200), min_size=1, max_size=4), st.sampled_from(["x", "é", "\N{BOMB}"]))
def test_the_texts_may_have_256_kib_together(sizes: list[int], letter: str) -> None:
    width = len(letter.encode())
    texts = [letter * (size * KIB // width) for size in sizes]
    if sum(len(text.encode()) for text in texts) <= 256 * KIB:
        assert len(read(spec(*texts)).input) == len(texts)
    else:
        assert refused(spec(*texts)).keys() == {"run.input"}


def test_the_images_may_have_3_mib_together() -> None:
    message = spec()
    for _ in range(2):
        message.input.add(image=content_pb2.Image(data=bytes(2 * KIB * KIB), media_type="image/png"))
    assert refused(message).keys() == {"run.input"}


def test_nul_in_labels_is_refused() -> None:
    message = spec()
    message.labels["k"] = "a\0"
    assert refused(message).keys() == {"run.labels"}


def test_cancel_on_disconnect_needs_a_connection() -> None:
    message = spec(disconnect_policy=run_pb2.DISCONNECT_POLICY_CANCEL)
    assert refused(message, attached=False).keys() == {"run.disconnect_policy"}
    assert read(message).disconnect_policy is DisconnectPolicy.CANCEL
    assert read(spec()).disconnect_policy is DisconnectPolicy.CONTINUE


def test_every_policy_for_a_busy_conversation_is_read() -> None:
    policies = [read(spec(concurrency_policy=number)).concurrency_policy for number in range(4)]
    assert [str(policy) for policy in policies] == ["queue", "reject", "queue", "interrupt"]


def test_every_policy_for_calls_that_need_the_user_is_read() -> None:
    policies = [read(spec(unattended_policy=number)).unattended_policy for number in range(4)]
    assert [str(policy) for policy in policies] == ["wait", "wait", "deny", "fail"]


ASKED_FOR: dict[str, Callable[[run_pb2.RunSpec], object]] = {
    "prompt_selector": lambda message: message.prompt.SetInParent(),
    "file_input": lambda message: message.input.add(file=content_pb2.FileRef(file_id="f")),
}


@pytest.mark.parametrize("feature", ASKED_FOR)
def test_what_is_not_built_is_refused_by_its_name(feature: str) -> None:
    message = spec()
    ASKED_FOR[feature](message)
    with pytest.raises(FeatureNotAvailableError) as error:
        read(message)
    assert error.value.metadata == {"feature": feature}


NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)


@pytest.mark.parametrize("state", RunState)
def test_a_run_is_written_as_it_stands(state: RunState) -> None:
    run = Run("r", "c", "a", state, 2, NOW, NOW + timedelta(hours=1), 7, {"k": "v"}, Usage(1, 2, 3, 4, 5, 6), NOW)
    message = write_run(run)
    assert message.state == RUN_STATE_NUMBERS[state]
    assert (message.run_id, message.conversation_id, message.agent_id, message.attempt) == ("r", "c", "a", 2)
    assert (message.create_time.ToDatetime(UTC), message.start_time.ToDatetime(UTC)) == (NOW, NOW)
    assert message.deadline_time.ToDatetime(UTC) == NOW + timedelta(hours=1)
    assert (message.last_seq, dict(message.labels), message.usage.tool_calls) == (7, {"k": "v"}, 6)
    assert not message.HasField("finish_time")
    assert not message.HasField("error")
    assert message.stop_reason == run_pb2.STOP_REASON_UNSPECIFIED


def test_a_failed_run_has_its_error() -> None:
    error = ErrorStatus(ErrorKind.INTERNAL, Reason.AGENT_FAILED, "it failed")
    end = RunEnd(RunState.FAILED, StopReason.ERROR, error)
    message = write_run(Run("r", "c", "a", RunState.FAILED, 1, NOW, NOW, 3, finish_time=NOW, end=end, output_text="x"))
    assert (message.stop_reason, message.error.code, message.output_text) == (run_pb2.STOP_REASON_ERROR, 13, "x")
    assert b"AGENT_FAILED" in message.error.details[0].value


def test_a_repeated_request_has_the_same_fingerprint_in_both_rpcs_and_another_one_has_not() -> None:
    message = spec("hello")
    message.labels.update({str(n): "v" for n in range(16)})
    other = spec("hello")
    other.labels.update({str(n): "v" for n in reversed(range(16))})
    started = idempotency_of(agent_service_pb2.StartRunRequest(run=message, request_id="1"), "1", "run")
    ran = idempotency_of(agent_service_pb2.RunAgentRequest(run=other, request_id="1"), "1", "run")
    assert started == ran
    other.input[0].text = "hello!"
    changed = idempotency_of(agent_service_pb2.RunAgentRequest(run=other, request_id="1"), "1", "run")
    assert started is not None
    assert changed is not None
    assert started.fingerprint != changed.fingerprint
    assert idempotency_of(agent_service_pb2.RunAgentRequest(run=other), "", "run") is None
