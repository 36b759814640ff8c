"""What model calls cost: exact integers, summed exactly, and never 0 where it is not known."""

from decimal import ROUND_HALF_UP, Decimal
from functools import reduce
from operator import add

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parley_server.domain.usage import MAX_COST_MICROS, Usage
from parley_server.llm.prices import NO_PRICES, Price, Prices
from pydantic import ValidationError

AMOUNTS = st.decimals(0, 1_000_000, places=6)
COUNTS = st.integers(0, 2**40)
PRICES = st.builds(Price, input=AMOUNTS, cached_input=st.none() | AMOUNTS, output=AMOUNTS, currency=st.just("EUR"))
CALLS = st.builds(Usage, COUNTS, COUNTS, COUNTS, COUNTS, st.just(1))


def price(**amounts: object) -> Price:
    return Price.model_validate({"input": 0, "output": 0, "currency": "USD", **amounts})


@given(PRICES, CALLS)
def test_a_cost_is_what_exact_arithmetic_says_rounded_half_up(price: Price, usage: Usage) -> None:
    cached = min(usage.cached_input_tokens, usage.input_tokens)
    per_cached = price.input if price.cached_input is None else price.cached_input
    micros = (usage.input_tokens - cached) * price.input + cached * per_cached + usage.output_tokens * price.output
    assert price.cost_micros(usage) == int(micros.quantize(Decimal(1), ROUND_HALF_UP))


@pytest.mark.parametrize(
    ("usage", "micros"),
    [
        (Usage(1_000_000, 0, 1_000_000, 0, 1), 2_250_000),
        (Usage(1_000_000, 400_000, 0, 0, 1), 160_000),
        (Usage(2, 0, 0, 0, 1), 1),
        (Usage(1, 0, 0, 0, 1), 0),
        (Usage(0, 0, 5, 5, 1), 10),
    ],
    ids=["a million each", "from the cache", "half a millionth is one", "less is none", "reasoning is output"],
)
def test_what_calls_cost(usage: Usage, micros: int) -> None:
    assert price(input="0.25", cached_input="0.025", output=2).cost_micros(usage) == micros


COSTS = st.builds(
    Usage,
    model_calls=st.integers(0, 3),
    cost_micros=st.integers(0, 2**62),
    currency_code=st.just("USD"),
) | st.builds(Usage, model_calls=st.integers(0, 3))


@given(st.lists(COSTS, max_size=6), st.integers(0, 6))
def test_sums_are_exact_whatever_the_order_of_summing(usages: list[Usage], cut: int) -> None:
    total = reduce(add, usages, Usage())
    assert total == reduce(add, usages[:cut], Usage()) + reduce(add, usages[cut:], Usage())
    asked = [usage for usage in usages if usage.model_calls]
    costs = [usage.cost_micros for usage in asked if usage.cost_micros is not None]
    is_known = asked and len(costs) == len(asked) and sum(costs) <= MAX_COST_MICROS
    assert (total.cost_micros, total.currency_code) == ((sum(costs), "USD") if is_known else (None, ""))


def test_what_has_no_price_has_no_cost_and_not_a_cost_of_nothing() -> None:
    usage = Usage(10, 0, 10, 0, 1)
    assert NO_PRICES.priced("m", usage) == usage
    prices = Prices({"m": price(), "dear": price(output=1_000_000)})
    assert prices.priced("other", usage).cost_micros is None
    assert (prices.priced("m", usage).cost_micros, prices.priced("m", usage).currency_code) == (0, "USD")
    assert prices.priced("dear", Usage(output_tokens=2**53, model_calls=1)).cost_micros is None


def test_costs_of_two_currencies_are_no_sum() -> None:
    one, other = (
        Usage(model_calls=1, cost_micros=1, currency_code="EUR"),
        Usage(model_calls=1, cost_micros=1, currency_code="USD"),
    )
    assert (one + other).cost_micros is None


@pytest.mark.parametrize(
    "amounts", [{"input": -1}, {"output": "0.0000001"}, {"input": "NaN"}, {"input": 1e9}, {"currency": "euro"}]
)
def test_what_is_no_price_is_refused(amounts: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        price(**amounts)


def test_a_price_as_configuration_files_write_numbers_is_exact() -> None:
    assert price(input=0.1, output=0.3).cost_micros(Usage(30, 0, 10, 0, 1)) == 6
