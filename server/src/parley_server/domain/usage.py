"""What a run consumed."""

from dataclasses import dataclass

MAX_COST_MICROS = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Usage:
    """Counts of one model call, or their sum over a run. `cached_input_tokens` are part of `input_tokens`.

    `cost_micros` is in millionths of `currency_code`, and exactly the sum of what the model calls cost; None, with no
    currency, where that of any of them is not known.
    """

    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    model_calls: int = 0
    tool_calls: int = 0
    cost_micros: int | None = None
    currency_code: str = ""

    def __add__(self, other: "Usage") -> "Usage":
        """Sum two usages. One without model calls adds nothing to the cost, and takes nothing from what is known."""
        cost_micros, currency_code = _sum_of_costs([usage for usage in (self, other) if usage.model_calls])
        return Usage(
            self.input_tokens + other.input_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            self.output_tokens + other.output_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.model_calls + other.model_calls,
            self.tool_calls + other.tool_calls,
            cost_micros,
            currency_code,
        )

    def since(self, earlier: "Usage") -> "Usage":
        """Return what was consumed after `earlier`, whose counts are part of these; its cost is known if both are."""
        cost_micros = None
        if self.cost_micros is not None and (earlier.cost_micros is not None or not earlier.model_calls):
            cost_micros = self.cost_micros - (earlier.cost_micros or 0)
        return Usage(
            self.input_tokens - earlier.input_tokens,
            self.cached_input_tokens - earlier.cached_input_tokens,
            self.output_tokens - earlier.output_tokens,
            self.reasoning_tokens - earlier.reasoning_tokens,
            self.model_calls - earlier.model_calls,
            self.tool_calls - earlier.tool_calls,
            cost_micros,
            "" if cost_micros is None else self.currency_code,
        )

    @property
    def tokens(self) -> int:
        """All tokens, those sent and those made."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class ModelUse:
    """What one step of a run consumed, and the model that answered."""

    model: str
    usage: Usage


def _sum_of_costs(usages: list[Usage]) -> tuple[int | None, str]:
    costs = [usage.cost_micros for usage in usages if usage.cost_micros is not None]
    currencies = {usage.currency_code for usage in usages}
    if len(costs) < len(usages) or len(currencies) != 1 or sum(costs) > MAX_COST_MICROS:
        return None, ""
    return sum(costs), currencies.pop()
