"""The breaker's rules, by a clock of the test's own."""

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parley_server.breaker import MIN_CALLS, PROBE_INTERVAL_S, WINDOW_S, Breaker, BreakerState


@dataclass
class Bench:
    """A breaker, its clock and the changes it told of."""

    now: float = 1000.0
    changes: list[BreakerState] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.breaker = Breaker(self.changes.append, lambda: self.now)

    def call(self, *, fails: bool) -> bool:
        """Make a call if it is admitted; return whether it was."""
        admitted = self.breaker.admit()
        if admitted is None:
            return False
        report = self.breaker.failed if fails else self.breaker.succeeded
        report(admitted)
        return True

    def open(self) -> None:
        for _ in range(MIN_CALLS):
            self.call(fails=True)
        assert self.breaker.state is BreakerState.OPEN


def test_it_opens_at_half_of_twenty_and_not_before() -> None:
    bench = Bench()
    for number in range(MIN_CALLS - 1):
        assert bench.call(fails=number % 2 == 0)
    assert bench.changes == []
    bench.call(fails=True)
    assert bench.changes == [BreakerState.OPEN]
    assert not bench.call(fails=False)
    assert bench.breaker.retry_after_s == PROBE_INTERVAL_S


def test_mostly_successes_keep_it_closed() -> None:
    bench = Bench()
    for number in range(1000):
        assert bench.call(fails=number % 5 < 2)
    assert bench.changes == []


def test_failures_further_apart_than_the_window_are_not_added_up() -> None:
    bench = Bench()
    for _ in range(5 * MIN_CALLS):
        bench.now += (WINDOW_S + 2) / MIN_CALLS
        assert bench.call(fails=True)
    assert bench.changes == []


def test_one_probe_is_admitted_in_every_interval_whatever_became_of_the_one_before() -> None:
    bench = Bench()
    bench.open()
    bench.now += PROBE_INTERVAL_S
    # Given up by whoever asked: nothing is reported.
    assert bench.breaker.admit() is not None
    assert bench.breaker.state is BreakerState.HALF_OPEN
    assert bench.breaker.admit() is None
    bench.now += PROBE_INTERVAL_S
    assert bench.call(fails=True)
    assert not bench.call(fails=False)
    bench.now += PROBE_INTERVAL_S
    assert bench.call(fails=False)
    assert all(bench.call(fails=False) for _ in range(100))
    assert bench.changes == [
        BreakerState.OPEN,
        BreakerState.HALF_OPEN,
        BreakerState.OPEN,
        BreakerState.HALF_OPEN,
        BreakerState.CLOSED,
    ]


def test_a_refusal_of_a_probe_closes_it_and_is_no_call_otherwise() -> None:
    bench = Bench()
    for _ in range(100):
        admitted = bench.breaker.admit()
        assert admitted is not None
        bench.breaker.reached(admitted)
    bench.open()
    bench.now += PROBE_INTERVAL_S
    probe = bench.breaker.admit()
    assert probe is not None
    bench.breaker.reached(probe)
    assert bench.changes[-1] is BreakerState.CLOSED


@pytest.mark.parametrize("fails", [True, False])
def test_a_report_of_a_time_that_is_over_counts_for_nothing(*, fails: bool) -> None:
    bench = Bench()
    before = bench.breaker.admit()
    assert before is not None
    bench.open()
    report = bench.breaker.failed if fails else bench.breaker.succeeded
    report(before)
    assert bench.changes == [BreakerState.OPEN]
    bench.now += PROBE_INTERVAL_S
    bench.call(fails=False)
    for _ in range(MIN_CALLS):
        bench.breaker.failed(before)
    assert bench.changes[-1] is BreakerState.CLOSED


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=200))
def test_while_open_at_most_one_call_per_interval_goes_through(calls: list[tuple[float, bool]]) -> None:
    bench = Bench()
    probes: list[float] = []
    for pause_s, fails in calls:
        bench.now += pause_s
        was_closed = bench.breaker.state is BreakerState.CLOSED
        if was_closed:
            probes.clear()
        if bench.call(fails=fails) and not was_closed:
            probes.append(bench.now)
        assert all(later - earlier >= PROBE_INTERVAL_S for earlier, later in itertools.pairwise(probes))
