"""What the tool calls of one run have come to so far, whichever attempts made them; the limits of a run count it."""

from dataclasses import dataclass

from parley_server.domain.tool import CallsMade, ToolCall
from parley_server.tools.arguments import parse_arguments
from parley_server.tools.fingerprint import fingerprint
from parley_server.tools.limits import CallLimits
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.repetition import WINDOW_TURNS, Repetition
from parley_server.tools.tool_time import ToolTime


@dataclass(frozen=True, slots=True)
class SoFar:
    """Of one run, kept while it is at work: its newest turns, and the time its tools have left."""

    repetition: Repetition
    time: ToolTime

    @classmethod
    def of(cls, made: CallsMade, tools: ToolRegistry, limits: CallLimits) -> "SoFar":
        """Take up where earlier attempts of the run have left off."""
        turns = [
            {_fingerprint(call) for call in turn if not is_repeatable(call.name, tools)}
            for turn in made.turns[-WINDOW_TURNS:]
        ]
        return cls(Repetition(turns), ToolTime(limits.tool_time_s, made.tool_time_s))


def is_repeatable(name: str, tools: ToolRegistry) -> bool:
    """Tell whether calls of this tool may be alike as often as the model likes."""
    tool = tools.get(name)
    return tool is not None and tool.spec.repeatable


def _fingerprint(call: ToolCall) -> str:
    return fingerprint(call.name, parse_arguments(call.arguments_json).value)
