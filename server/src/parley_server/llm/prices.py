"""What model calls cost: the `[prices.NAME]` tables of the configuration, and exact sums by them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from types import MappingProxyType
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from parley_server.domain.usage import MAX_COST_MICROS, Usage

_PLACES = 6
_UNIT = 1_000_000

_MAX_AMOUNT = 1_000_000
_Amount = Annotated[
    Decimal,
    Field(ge=0, le=_MAX_AMOUNT, decimal_places=_PLACES, allow_inf_nan=False),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": _MAX_AMOUNT}),
]


class Price(BaseModel):
    """`[prices.NAME]`: what the model of that name costs, for example `[prices."gpt-5-mini"]`.

    The name is the one that runs and settings ask for. Amounts are in units of `currency` per million tokens, exact to
    six decimal places.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: _Amount
    """What a million tokens cost that are sent to the model."""

    cached_input: _Amount | None = None
    """What they cost where the model's provider has them in its cache; not set: as much as any others."""

    output: _Amount
    """What a million tokens cost that the model makes, those of its reasoning included."""

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    """The ISO 4217 code of the currency. One for all prices of a server."""

    def cost_micros(self, usage: Usage) -> int:
        """Return what a model call costs in millionths of the currency, rounded half up, once."""
        cached_tokens = min(usage.cached_input_tokens, usage.input_tokens)
        cached_input = self.input if self.cached_input is None else self.cached_input
        # A price per million tokens is one in millionths per token; these are millionths of those.
        cost = (
            (usage.input_tokens - cached_tokens) * _scaled(self.input)
            + cached_tokens * _scaled(cached_input)
            + usage.output_tokens * _scaled(self.output)
        )
        return (cost + _UNIT // 2) // _UNIT


def _scaled(amount: Decimal) -> int:
    return int(amount.scaleb(_PLACES))


@dataclass(frozen=True, slots=True)
class Prices:
    """The prices of models, by their names."""

    by_model: Mapping[str, Price] = field(default_factory=lambda: MappingProxyType({}))

    def priced(self, model: str, usage: Usage) -> Usage:
        """Return the usage of one call of a model with its cost; as it is where the model has no price."""
        price = self.by_model.get(model)
        cost_micros = None if price is None else price.cost_micros(usage)
        if price is None or cost_micros is None or cost_micros > MAX_COST_MICROS:
            return usage
        return replace(usage, cost_micros=cost_micros, currency_code=price.currency)


NO_PRICES = Prices()
