"""Runs: what is asked for, and how one stands."""

from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from parley.v1 import run_pb2 as pb

from parley_server.domain.errors import InvalidRequestError, Violation
from parley_server.domain.run import (
    MAX_DEADLINE,
    MAX_STEPS,
    MAX_TOOL_CALLS,
    ConcurrencyPolicy,
    DisconnectPolicy,
    Limits,
    ModelOptions,
    Run,
    RunSpec,
    UnattendedPolicy,
)
from parley_server.rpc.mapping.content import read_input
from parley_server.rpc.mapping.enums import RUN_STATE_NUMBERS, STOP_REASON_NUMBERS
from parley_server.rpc.mapping.errors import write_run_error
from parley_server.rpc.mapping.features import not_available
from parley_server.rpc.mapping.text import refuse_nul, texts_of
from parley_server.rpc.mapping.timestamps import optional_timestamp, set_timestamp
from parley_server.rpc.mapping.usage import write_usage

_DEFAULTS = Limits()
_CONCURRENCY_POLICIES = {
    pb.CONCURRENCY_POLICY_UNSPECIFIED: ConcurrencyPolicy.QUEUE,
    pb.CONCURRENCY_POLICY_QUEUE: ConcurrencyPolicy.QUEUE,
    pb.CONCURRENCY_POLICY_REJECT: ConcurrencyPolicy.REJECT,
    pb.CONCURRENCY_POLICY_INTERRUPT: ConcurrencyPolicy.INTERRUPT,
}
_DISCONNECT_POLICIES = {
    pb.DISCONNECT_POLICY_UNSPECIFIED: DisconnectPolicy.CONTINUE,
    pb.DISCONNECT_POLICY_CONTINUE: DisconnectPolicy.CONTINUE,
    pb.DISCONNECT_POLICY_CANCEL: DisconnectPolicy.CANCEL,
}
_UNATTENDED_POLICIES = {
    pb.UNATTENDED_POLICY_UNSPECIFIED: UnattendedPolicy.WAIT,
    pb.UNATTENDED_POLICY_WAIT: UnattendedPolicy.WAIT,
    pb.UNATTENDED_POLICY_DENY: UnattendedPolicy.DENY,
    pb.UNATTENDED_POLICY_FAIL: UnattendedPolicy.FAIL,
}


def read_run_spec(spec: pb.RunSpec, *, attached: bool) -> RunSpec:
    """Read what a client asks for. `attached` says whether the call stays open for the run's events.

    Raises:
        InvalidRequestError: a limit is above its ceiling, the input is at fault, or a policy makes no sense here.
        FeatureNotAvailableError: an option is asked for that this server does not have.
    """
    if spec.disconnect_policy == pb.DISCONNECT_POLICY_CANCEL and not attached:
        raise InvalidRequestError.of("run.disconnect_policy", "CANCEL is for RunAgent only")
    refuse_nul({"run.labels": texts_of(spec.labels), "run.model_options.stop": spec.model_options.stop})
    limits = _read_limits(spec.limits)
    content = read_input(spec.input, "run.input")
    if spec.HasField("prompt"):
        raise not_available("prompt_selector")
    return RunSpec(
        agent_id=spec.agent_id,
        conversation_id=spec.conversation_id,
        input=content,
        model_options=_read_model_options(spec.model_options),
        allowed_tools=tuple(spec.allowed_tools),
        disable_tools=spec.disable_tools,
        output_schema_json=spec.output_schema_json,
        limits=limits,
        concurrency_policy=_CONCURRENCY_POLICIES[spec.concurrency_policy],
        disconnect_policy=_DISCONNECT_POLICIES[spec.disconnect_policy],
        unattended_policy=_UNATTENDED_POLICIES[spec.unattended_policy],
        labels=dict(spec.labels),
    )


def write_run(run: Run) -> pb.Run:
    """Return a run as it stands."""
    message = pb.Run(
        run_id=run.run_id,
        conversation_id=run.conversation_id,
        agent_id=run.agent_id,
        state=RUN_STATE_NUMBERS[run.state],
        attempt=run.attempt,
        start_time=optional_timestamp(run.start_time),
        finish_time=optional_timestamp(run.finish_time),
        last_seq=run.last_seq,
        labels=run.labels,
        output_text=run.output_text,
        output_json=run.output_json,
    )
    set_timestamp(message.create_time, run.create_time)
    set_timestamp(message.deadline_time, run.deadline_time)
    write_usage(message.usage, run.usage)
    if run.end is not None:
        message.stop_reason = STOP_REASON_NUMBERS[run.end.stop_reason]
        if run.end.error is not None:
            write_run_error(message.error, run.end.error)
    return message


def _read_limits(limits: pb.Limits) -> Limits:
    deadline = _read_deadline(limits.deadline) if limits.HasField("deadline") else _DEFAULTS.deadline
    max_steps = limits.max_steps if limits.HasField("max_steps") else _DEFAULTS.max_steps
    max_tool_calls = limits.max_tool_calls if limits.HasField("max_tool_calls") else _DEFAULTS.max_tool_calls
    faults = [
        Violation(f"run.limits.{field}", f"at most {ceiling}")
        for field, is_over, ceiling in (
            ("deadline", deadline > MAX_DEADLINE, "24 hours"),
            ("max_steps", max_steps > MAX_STEPS, MAX_STEPS),
            ("max_tool_calls", max_tool_calls > MAX_TOOL_CALLS, MAX_TOOL_CALLS),
        )
        if is_over
    ]
    if faults:
        raise InvalidRequestError.of_all(faults)
    max_output_tokens = limits.max_output_tokens if limits.HasField("max_output_tokens") else None
    return Limits(deadline, max_steps, max_tool_calls, max_output_tokens)


def _read_deadline(deadline: Duration) -> timedelta:
    """Return the span, at least a microsecond; one too long for a timedelta is merely above the ceiling."""
    span = timedelta(seconds=min(deadline.seconds, 10**9), microseconds=deadline.nanos // 1_000)
    return max(span, timedelta(microseconds=1))


def _read_model_options(options: pb.ModelOptions) -> ModelOptions:
    return ModelOptions(
        model=options.model,
        temperature=options.temperature if options.HasField("temperature") else None,
        top_p=options.top_p if options.HasField("top_p") else None,
        max_output_tokens=options.max_output_tokens if options.HasField("max_output_tokens") else None,
        stop=tuple(options.stop),
        seed=options.seed if options.HasField("seed") else None,
    )
