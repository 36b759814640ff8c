"""What a program asks of a run, as the contract's messages."""

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from google.protobuf.duration_pb2 import Duration
from parley.v1.agent_service_pb2 import SteerRunRequest
from parley.v1.content_pb2 import ContentPart
from parley.v1.run_pb2 import UNATTENDED_POLICY_UNSPECIFIED, Limits, RunSpec, UnattendedPolicy

Words: TypeAlias = "str | Sequence[ContentPart]"
Input: TypeAlias = "Words | RunSpec"
Schema: TypeAlias = "str | Mapping[str, object]"


def run_spec(
    run_input: Input,
    *,
    agent: str = "",
    conversation_id: str = "",
    deadline_s: float | None = None,
    output_schema: Schema = "",
    unattended_policy: UnattendedPolicy.ValueType = UNATTENDED_POLICY_UNSPECIFIED,
) -> RunSpec:
    """Build the spec of a run from a text, from parts, or from a spec whose fields the keywords override when set."""
    spec = RunSpec()
    if isinstance(run_input, RunSpec):
        spec.CopyFrom(run_input)
    else:
        spec.input.extend(_parts(run_input))
    schema_json = output_schema if isinstance(output_schema, str) else json.dumps(output_schema)
    overrides = RunSpec(
        agent_id=agent,
        conversation_id=conversation_id,
        output_schema_json=schema_json,
        unattended_policy=unattended_policy,
    )
    if deadline_s is not None:
        overrides.limits.CopyFrom(Limits(deadline=_duration(deadline_s)))
    spec.MergeFrom(overrides)
    return spec


def steer_request(run_id: str, words: Words, request_id: str) -> SteerRunRequest:
    """Build the request that adds words to a run, under an id of its own when that is empty."""
    return SteerRunRequest(run_id=run_id, input=_parts(words), request_id=request_id or uuid.uuid4().hex)


def _parts(words: Words) -> Sequence[ContentPart]:
    return [ContentPart(text=words)] if isinstance(words, str) else words


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMicroseconds(round(seconds * 1_000_000))
    return duration
