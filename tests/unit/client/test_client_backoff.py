"""How soon and for how long a broken stream is tried again."""

import math

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from parley_client import ParleyError, ReconnectLimits, UnavailableError
from parley_client.reconnect import Reconnects

LIMITS = ReconnectLimits(connect_for_s=10, reconnect_for_s=60, first_delay_s=0.2, longest_delay_s=5)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def lost(reason: str = "", retry_after_s: float | None = None) -> ParleyError:
    return UnavailableError(grpc.StatusCode.UNAVAILABLE, "lost", reason=reason, retry_after_s=retry_after_s)


def wait_for_ever(reconnects: Reconnects, clock: Clock, error: ParleyError) -> None:
    for _ in range(10_000):
        clock.now += reconnects.next_delay_s(error)


def give_up_after(reconnects: Reconnects, clock: Clock, error: ParleyError) -> float:
    """Wait as told until it gives up; returns the time that took."""
    began = clock.now
    with pytest.raises(UnavailableError, match="lost"):
        wait_for_ever(reconnects, clock, error)
    return clock.now - began


@given(st.integers(min_value=0, max_value=12))
def test_a_wait_is_random_below_a_ceiling_that_doubles(earlier: int) -> None:
    reconnects = Reconnects(ReconnectLimits(1e9, 1e9, 0.2, 5), Clock())
    for _ in range(earlier):
        reconnects.next_delay_s(lost())
    assert 0 <= reconnects.next_delay_s(lost()) <= min(5, 0.2 * 2**earlier)


def test_before_anybody_answered_the_shorter_budget_holds() -> None:
    clock = Clock()
    assert 4 < give_up_after(Reconnects(LIMITS, clock), clock, lost()) <= 10


def test_a_server_that_says_why_has_the_longer_budget() -> None:
    clock = Clock()
    assert 54 < give_up_after(Reconnects(LIMITS, clock), clock, lost("SERVER_DRAINING")) <= 60


def test_progress_begins_afresh() -> None:
    clock = Clock()
    reconnects = Reconnects(LIMITS, clock)
    for _ in range(3):
        reconnects.progress()
        assert reconnects.next_delay_s(lost()) <= 0.2
        assert 54 < give_up_after(reconnects, clock, lost()) <= 60
        clock.now += 1000


@given(st.floats(min_value=0, max_value=9))
def test_the_servers_wish_is_the_least(wish_s: float) -> None:
    assert wish_s <= Reconnects(LIMITS, Clock()).next_delay_s(lost(retry_after_s=wish_s)) <= wish_s + 0.2


@pytest.mark.parametrize("wish_s", [math.inf, 61.0])
def test_a_wish_beyond_the_budget_ends_it(wish_s: float) -> None:
    reconnects = Reconnects(LIMITS, Clock())
    reconnects.progress()
    with pytest.raises(UnavailableError):
        reconnects.next_delay_s(lost(retry_after_s=wish_s))
