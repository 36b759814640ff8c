"""The counts of one model call, under the names that servers give them."""

from collections.abc import Mapping

from parley_server.domain.usage import Usage

_MAX_COUNT = 2**53


def read_usage(counts: object) -> Usage:
    """Read the counts of one model call; what is no count is 0."""
    return Usage(
        input_tokens=_count(counts, "prompt_tokens", "input_tokens"),
        cached_input_tokens=_count(_field(counts, "prompt_tokens_details", "input_tokens_details"), "cached_tokens")
        or _count(counts, "prompt_cache_hit_tokens"),
        output_tokens=_count(counts, "completion_tokens", "output_tokens"),
        reasoning_tokens=_count(
            _field(counts, "completion_tokens_details", "output_tokens_details"), "reasoning_tokens"
        ),
        model_calls=1,
    )


def has_counts(usage: Usage) -> bool:
    """Tell whether a server counted at all: no call is without any token."""
    return bool(usage.input_tokens or usage.output_tokens)


def _count(counts: object, *names: str) -> int:
    value = _field(counts, *names)
    return min(value, _MAX_COUNT) if isinstance(value, int) and value > 0 else 0


def _field(mapping: object, *names: str) -> object:
    if isinstance(mapping, Mapping):
        for name in names:
            if mapping.get(name) is not None:
                return mapping[name]
    return None
