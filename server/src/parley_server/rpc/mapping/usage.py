"""Usage."""

from parley.v1 import usage_pb2

from parley_server.domain.usage import Usage


def write_usage(target: usage_pb2.Usage, usage: Usage) -> None:
    """Write the counts, and the cost where it is known, into a message's own field, which is present from then on."""
    target.SetInParent()
    target.input_tokens = usage.input_tokens
    target.cached_input_tokens = usage.cached_input_tokens
    target.output_tokens = usage.output_tokens
    target.reasoning_tokens = usage.reasoning_tokens
    target.model_calls = usage.model_calls
    target.tool_calls = usage.tool_calls
    if usage.cost_micros is not None:
        target.cost_micros = usage.cost_micros
        target.currency_code = usage.currency_code


def read_usage(source: usage_pb2.Usage) -> Usage:
    """Read the counts and the cost."""
    return Usage(
        input_tokens=source.input_tokens,
        cached_input_tokens=source.cached_input_tokens,
        output_tokens=source.output_tokens,
        reasoning_tokens=source.reasoning_tokens,
        model_calls=source.model_calls,
        tool_calls=source.tool_calls,
        cost_micros=source.cost_micros if source.HasField("cost_micros") else None,
        currency_code=source.currency_code,
    )
