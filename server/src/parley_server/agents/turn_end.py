"""When a turn is over: the model has answered, or a limit of the run is reached."""

from collections.abc import Mapping
from types import MappingProxyType

from parley_server.domain.errors import ErrorKind, ErrorStatus, Reason
from parley_server.domain.run import Limits, RunEnd, RunState, StopReason
from parley_server.domain.usage import Usage
from parley_server.llm.model_service import FinishChunk, FinishReason
from parley_server.tools.repetition import MAX_TIMES

_ANSWERS = MappingProxyType(
    {
        FinishReason.LENGTH: StopReason.OUTPUT_LENGTH,
        FinishReason.CONTENT_FILTER: StopReason.CONTENT_FILTER,
        FinishReason.REFUSAL: StopReason.REFUSAL,
    }
)


def end_of_answer(finish: FinishChunk, usage: Usage, limits: Limits) -> RunEnd:
    """Return the end that an answer without tool calls brings; `usage` is the run's, this answer included."""
    if _is_out_of_tokens(finish, usage, limits):
        return _out_of_tokens(limits)
    return RunEnd(RunState.SUCCEEDED, _ANSWERS.get(finish.reason, StopReason.ANSWERED))


def output_invalid(problem: str) -> RunEnd:
    """Return the end of a run whose answer does not fit the schema asked for, nor did the one before it."""
    message = f"the answer does not fit the schema: {problem}"
    error = ErrorStatus(ErrorKind.ABORTED, Reason.OUTPUT_INVALID, message, {"problem": problem})
    return RunEnd(RunState.FAILED, StopReason.ERROR, error)


def limit_reached(usage: Usage, limits: Limits) -> RunEnd | None:
    """Return the end of a run that may not ask its model again, or None when it may.

    What the run has consumed tells it alone, whichever attempt consumed it.
    """
    if limits.max_output_tokens is not None and usage.output_tokens >= limits.max_output_tokens:
        return _out_of_tokens(limits)
    if usage.tool_calls > limits.max_tool_calls:
        return _limit_end(
            StopReason.MAX_TOOL_CALLS,
            Reason.TOOL_CALL_LIMIT_REACHED,
            f"the run reached its limit of {limits.max_tool_calls} tool calls",
            {"max_tool_calls": str(limits.max_tool_calls)},
        )
    if usage.model_calls >= limits.max_steps:
        return _limit_end(
            StopReason.MAX_STEPS,
            Reason.STEP_LIMIT_REACHED,
            f"the run reached its limit of {limits.max_steps} model calls",
            {"max_steps": str(limits.max_steps)},
        )
    return None


def loop_detected() -> RunEnd:
    """Return the end of a run whose model made the same call again and again."""
    message = f"the model made the same call {MAX_TIMES} times in a row"
    error = ErrorStatus(ErrorKind.ABORTED, Reason.LOOP_DETECTED, message, {"times": str(MAX_TIMES)})
    return RunEnd(RunState.FAILED, StopReason.LOOP_DETECTED, error)


def calls_to_run(finish: FinishChunk, usage: Usage, limits: Limits) -> int:
    """Return how many of an answer's tool calls are within the limits; `usage` is the run's, those calls included."""
    if _is_out_of_tokens(finish, usage, limits):
        return 0
    made_before = usage.tool_calls - len(finish.tool_calls)
    return max(limits.max_tool_calls - made_before, 0)


def output_cap(wished: int | None, usage: Usage, limits: Limits) -> int | None:
    """Return the cap of the next model call: the caller's own or what the run has left, whichever is less."""
    if limits.max_output_tokens is None:
        return wished
    left = limits.max_output_tokens - usage.output_tokens
    return left if wished is None else min(wished, left)


def _is_out_of_tokens(finish: FinishChunk, usage: Usage, limits: Limits) -> bool:
    if limits.max_output_tokens is None:
        return False
    is_whole_answer = not finish.tool_calls and finish.reason is not FinishReason.LENGTH
    return usage.output_tokens + (not is_whole_answer) > limits.max_output_tokens


def _out_of_tokens(limits: Limits) -> RunEnd:
    return _limit_end(
        StopReason.MAX_OUTPUT_TOKENS,
        Reason.OUTPUT_TOKEN_LIMIT_REACHED,
        f"the run reached its limit of {limits.max_output_tokens} output tokens",
        {"max_output_tokens": str(limits.max_output_tokens)},
    )


def _limit_end(stop_reason: StopReason, reason: Reason, message: str, limit: Mapping[str, str]) -> RunEnd:
    error = ErrorStatus(ErrorKind.RESOURCE_EXHAUSTED, reason, message, limit)
    return RunEnd(RunState.FAILED, stop_reason, error)
