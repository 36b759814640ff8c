"""What a run has used, in one line."""

from parley.v1.usage_pb2 import Usage

_MICROS = 1_000_000


def usage_text(usage: Usage) -> str:
    """Write the tokens, the calls and the cost of a run; empty when the server counted no tokens."""
    if not usage.input_tokens and not usage.output_tokens:
        return ""
    parts = [f"{usage.input_tokens:,} tokens in", f"{usage.output_tokens:,} out"]
    if usage.tool_calls:
        parts.append(f"{usage.tool_calls} tool call" + ("s" if usage.tool_calls > 1 else ""))
    if usage.HasField("cost_micros"):
        parts.append(f"{usage.cost_micros / _MICROS:.4f} {usage.currency_code}".rstrip())
    return " · ".join(parts)
