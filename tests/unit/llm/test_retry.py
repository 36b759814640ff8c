"""What is asked again: how often, after how long, and how much in all."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parley_server.domain.errors import ErrorKind, Reason
from parley_server.llm.model_service import ModelError, Remedy
from parley_server.llm.retry import BUDGET, EARNED_BY_SUCCESS, EARNED_PER_S, RetryBudget, RetryPolicy
from unit.llm.service_calls import HELLO


def failed(retry_after_s: float | None = None, remedy: Remedy = Remedy.ASK_AGAIN) -> ModelError:
    return ModelError(ErrorKind.UNAVAILABLE, Reason.MODEL_UNAVAILABLE, "no", retry_after_s=retry_after_s, remedy=remedy)


def test_delays_are_spread_from_nothing_to_a_ceiling_that_doubles() -> None:
    policy = RetryPolicy(retries=3)
    for done, ceiling_s in ((0, 0.5), (1, 1.0), (2, 2.0)):
        delays = [policy.delay_s(failed(), HELLO, done) or 0.0 for _ in range(300)]
        assert 0 <= min(delays) < 0.1 * ceiling_s
        assert 0.9 * ceiling_s < max(delays) <= ceiling_s


@pytest.mark.parametrize(
    ("error", "done"),
    [
        (failed(), 2),
        (failed(30.5), 0),
        (failed(remedy=Remedy.ASK_ANOTHER), 0),
        (failed(remedy=Remedy.NONE), 0),
    ],
)
def test_what_is_not_asked_again(error: ModelError, done: int) -> None:
    assert RetryPolicy(retries=2).delay_s(error, HELLO, done) is None


def test_the_server_is_given_the_time_it_asks_for() -> None:
    delay_s = RetryPolicy(retries=2).delay_s(failed(30), HELLO, 0)
    assert delay_s is not None
    assert 30 <= delay_s <= 30.5


def test_a_wait_that_the_run_would_not_outlive_is_not_begun() -> None:
    in_5_s = replace(HELLO, deadline_time=datetime.now(UTC) + timedelta(seconds=5))
    assert RetryPolicy(retries=2).delay_s(failed(6), in_5_s, 0) is None
    assert RetryPolicy(retries=2).delay_s(failed(3), in_5_s, 0) is not None
    over = replace(HELLO, deadline_time=datetime.now(UTC))
    assert RetryPolicy(retries=2).delay_s(failed(), over, 0) is None


@given(st.lists(st.tuples(st.sampled_from(["succeed", "fail"]), st.floats(0, 60)), max_size=300))
def test_the_budget_is_a_tenth_of_what_succeeds_and_a_few_more(history: list[tuple[str, float]]) -> None:
    now, successes, retries = 0.0, 0, 0
    budget = RetryBudget(lambda: now)
    for what, pause_s in history:
        now += pause_s
        if what == "succeed":
            successes += 1
            budget.earn()
        else:
            retries += budget.spend() + budget.spend()
    assert retries <= BUDGET + EARNED_BY_SUCCESS * successes + EARNED_PER_S * now + 1e-6


def test_a_server_that_is_down_is_asked_hardly_more_than_without_retries() -> None:
    now = 0.0
    budget = RetryBudget(lambda: now)
    attempts = 0
    for _ in range(600):
        now += 1.0
        attempts += 1 + budget.spend() + budget.spend()
    assert attempts <= 1.10 * 600
