"""Usage."""

from parley.v1 import usage_pb2

from parley_server.domain.usage import Usage


def write_usage(target: usage_pb2.Usage, usage: Usage) -> None:
    """Write the counts into a message's own field, which is present from then on."""
    target.SetInParent()
    target.input_tokens = usage.input_tokens
    target.cached_input_tokens = usage.cached_input_tokens
    target.output_tokens = usage.output_tokens
    target.reasoning_tokens = usage.reasoning_tokens
    target.model_calls = usage.model_calls
    target.tool_calls = usage.tool_calls


def read_usage(source: usage_pb2.Usage) -> Usage:
    """Read the counts."""
    return Usage(
        input_tokens=source.input_tokens,
        cached_input_tokens=source.cached_input_tokens,
        output_tokens=source.output_tokens,
        reasoning_tokens=source.reasoning_tokens,
        model_calls=source.model_calls,
        tool_calls=source.tool_calls,
    )
