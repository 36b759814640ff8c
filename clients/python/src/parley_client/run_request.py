"""What a program asks of a run, as the contract's messages."""

from collections.abc import Sequence
from typing import TypeAlias

from google.protobuf.duration_pb2 import Duration
from parley.v1.content_pb2 import ContentPart
from parley.v1.run_pb2 import Limits, RunSpec

Input: TypeAlias = "str | Sequence[ContentPart] | RunSpec"


def run_spec(
    run_input: Input, *, agent: str = "", conversation_id: str = "", deadline_s: float | None = None
) -> RunSpec:
    """Build the spec of a run from a text, from parts, or from a spec whose fields the keywords override when set."""
    spec = RunSpec()
    if isinstance(run_input, RunSpec):
        spec.CopyFrom(run_input)
    else:
        parts = [ContentPart(text=run_input)] if isinstance(run_input, str) else run_input
        spec.input.extend(parts)
    overrides = RunSpec(agent_id=agent, conversation_id=conversation_id)
    if deadline_s is not None:
        overrides.limits.CopyFrom(Limits(deadline=_duration(deadline_s)))
    spec.MergeFrom(overrides)
    return spec


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMicroseconds(round(seconds * 1_000_000))
    return duration
