"""What the tool calls of a run may come to. Every one of these is hard, whatever the model asks for."""

from dataclasses import dataclass

MAX_CALLS_PER_TURN = 32
MAX_PARALLEL_CALLS = 8
MAX_TOOL_TIME_S = 300.0
MAX_RETRIES = 2


@dataclass(frozen=True, slots=True)
class CallLimits:
    """Of one run: calls in one turn of the model, calls at once, and seconds in which its tools are at work in all."""

    calls_per_turn: int = MAX_CALLS_PER_TURN
    parallel_calls: int = MAX_PARALLEL_CALLS
    tool_time_s: float = MAX_TOOL_TIME_S
