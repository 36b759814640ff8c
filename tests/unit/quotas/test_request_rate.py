"""Requests a minute: exactly as many as a plain model of the rule lets through, and never a counter too many."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parley_server.domain.quota import Limit, Measure, Subject, SubjectKind
from parley_server.domain.quota_errors import QuotaExceededError
from parley_server.quotas.request_rate import LEAST_SWEPT, MINUTE_NS, RequestRates


def limit(amount: int, burst: int = 0, rule: str = "rule", user_id: str = "ann") -> Limit:
    subject = Subject(SubjectKind.USER, user_id)
    return Limit(rule, subject, Measure.REQUESTS_PER_MINUTE, amount, burst=burst or amount)


class Clock:
    """A clock that stands still."""

    now = 0

    def __call__(self) -> int:
        return self.now


class Bucket:
    """The rule as a bucket that holds `burst` requests and gains one every interval: the plain model."""

    def __init__(self, amount: int, burst: int) -> None:
        self.interval = -(-MINUTE_NS // amount)
        self.burst_ns = burst * self.interval
        self.level_ns = self.burst_ns
        self.at = 0

    def take(self, now: int) -> int:
        """Take one; return how long it has to wait, 0 when it was taken."""
        self.level_ns = min(self.level_ns + now - self.at, self.burst_ns)
        self.at = now
        if self.level_ns < self.interval:
            return self.interval - self.level_ns
        self.level_ns -= self.interval
        return 0


def wait_ns(rates: RequestRates, *limits: Limit) -> int:
    try:
        rates.take(limits)
    except QuotaExceededError as error:
        return round((error.retry_after_s or 0) * 1e9)
    return 0


STEPS = st.lists(st.one_of(st.just(0), st.integers(0, 2 * MINUTE_NS)), max_size=60)


@given(STEPS, st.integers(1, 200), st.integers(1, 200))
def test_requests_are_let_through_as_the_rule_says(steps: list[int], amount: int, burst: int) -> None:
    clock = Clock()
    rates, bucket = RequestRates(clock), Bucket(amount, burst)
    for step in steps:
        clock.now += step
        waited, expected = wait_ns(rates, limit(amount, burst)), bucket.take(clock.now)
        # Seconds as a float are exact to some hundred nanoseconds.
        assert abs(waited - expected) <= 1000
        assert (waited == 0) == (expected == 0)


@given(STEPS, st.integers(1, 50), st.integers(1, 50))
def test_no_minute_has_more_than_its_share_and_one_burst(steps: list[int], amount: int, burst: int) -> None:
    clock, passed = Clock(), list[int]()
    rates = RequestRates(clock)
    for step in steps:
        clock.now += step
        if not wait_ns(rates, limit(amount, burst)):
            passed.append(clock.now)
    for first in passed:
        assert sum(first <= each < first + MINUTE_NS for each in passed) <= amount + burst


@given(st.integers(1, 1000), st.integers(1, 50))
def test_whoever_waits_as_long_as_he_is_told_is_let_through_and_nobody_sooner(amount: int, burst: int) -> None:
    clock = Clock()
    rates = RequestRates(clock)
    for _ in range(burst):
        assert not wait_ns(rates, limit(amount, burst))
    wait = wait_ns(rates, limit(amount, burst))
    clock.now = wait - 2000
    assert wait_ns(rates, limit(amount, burst))
    clock.now = wait + 1000
    assert not wait_ns(rates, limit(amount, burst))


def test_a_request_that_one_limit_refuses_is_counted_against_none() -> None:
    clock = Clock()
    rates = RequestRates(clock)
    of_key, of_user = limit(10, rule="key"), limit(2, rule="user")
    assert [wait_ns(rates, of_key, of_user) for _ in range(4)] == [0, 0, MINUTE_NS // 2, MINUTE_NS // 2]
    assert (rates.counted(of_key), rates.counted(of_user)) == (2, 2)


def test_the_error_names_the_limit_that_leaves_room_last() -> None:
    rates = RequestRates(Clock())
    fast, slow = limit(60, 1, rule="fast"), limit(1, 1, rule="slow")
    rates.take([fast, slow])
    with pytest.raises(QuotaExceededError) as refused:
        rates.take([fast, slow])
    assert refused.value.retry_after_s == 60
    assert refused.value.metadata == {"limit": "requests_per_minute", "amount": "1", "subject": "user"}


def test_a_limit_that_shrinks_holds_at_once_and_forgets_nothing() -> None:
    clock = Clock()
    rates = RequestRates(clock)
    for _ in range(50):
        rates.take([limit(60)])
    assert rates.counted(limit(60)) == 50
    assert rates.counted(limit(10)) == 9
    assert not wait_ns(rates, limit(10))
    assert wait_ns(rates, limit(10))


def test_counters_that_are_empty_are_forgotten() -> None:
    clock = Clock()
    rates = RequestRates(clock)
    for n in range(LEAST_SWEPT):
        rates.take([limit(60, user_id=f"u{n}")])
    clock.now = MINUTE_NS
    for n in range(10):
        rates.take([limit(60, user_id=f"v{n}")])
    assert len(rates) == 10
