"""The limiter of bad credentials, held against a list of all that ever failed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parley_server.auth import failure_limiter
from parley_server.auth.failure_limiter import LOCAL_FACTOR, WINDOW_S, FailureLimiter
from parley_server.auth.peer import LOCAL_ORIGIN, origin_of
from parley_server.domain.access_errors import AuthRateLimitedError


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def refusal(limiter: FailureLimiter, origin: str) -> AuthRateLimitedError | None:
    try:
        limiter.check(origin)
    except AuthRateLimitedError as error:
        return error
    return None


STEPS = st.tuples(
    st.sampled_from(["192.0.2.1", "192.0.2.2", LOCAL_ORIGIN]), st.sampled_from([0.0, 0.5, 7.0, 59.5, 61.0])
)


@given(st.integers(1, 4), st.lists(STEPS, max_size=60))
def test_it_lets_through_what_a_list_of_all_failures_would(limit: int, steps: list[tuple[str, float]]) -> None:
    clock = Clock()
    limiter = FailureLimiter(limit, clock)
    failed: list[tuple[str, float]] = []
    for origin, pause in steps:
        clock.now += pause
        lately = [time for each, time in failed if each == origin and time > clock.now - WINDOW_S]
        allowed = limit * (LOCAL_FACTOR if origin == LOCAL_ORIGIN else 1)
        error = refusal(limiter, origin)
        assert (error is not None) == (len(lately) >= allowed)
        if error is None:
            limiter.count(origin)
            failed.append((origin, clock.now))
        else:
            assert error.retry_after_s is not None
            assert 0 <= error.retry_after_s - (lately[-allowed] + WINDOW_S - clock.now) < 1


@given(st.integers(1, 5), st.floats(0, 59))
def test_who_waits_as_long_as_told_is_looked_at_again(limit: int, spread: float) -> None:
    clock = Clock()
    limiter = FailureLimiter(limit, clock)
    for _ in range(limit):
        limiter.count("192.0.2.1")
        clock.now += spread / limit
    error = refusal(limiter, "192.0.2.1")
    assert error is not None
    assert error.retry_after_s is not None
    clock.now += error.retry_after_s
    assert refusal(limiter, "192.0.2.1") is None


def test_one_that_was_looked_at_meanwhile_is_not_counted_over_the_limit() -> None:
    clock = Clock()
    limiter = FailureLimiter(1, clock)
    limiter.count("192.0.2.1")
    clock.now += 30
    with pytest.raises(AuthRateLimitedError):
        limiter.count("192.0.2.1")
    clock.now += 30
    assert refusal(limiter, "192.0.2.1") is None


def test_what_is_remembered_is_bounded_and_the_latest_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failure_limiter, "MAX_ORIGINS", 3)
    limiter = FailureLimiter(2, Clock())
    for origin in ("a", "b", "a", "c", "d"):
        limiter.count(origin)
    assert list(limiter._failures) == ["a", "c", "d"]
    assert refusal(limiter, "a") is not None


@pytest.mark.parametrize(
    ("peer", "origin"),
    [
        ("ipv4:192.0.2.7:40000", "192.0.2.7"),
        ("ipv4:192.0.2.7:40001", "192.0.2.7"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:40000", "2001:db8:1:2::"),
        ("ipv6:[2001:db8:1:2::]:1", "2001:db8:1:2::"),
        ("ipv6:%5B2001:db8:1:3::1%5D:1", "2001:db8:1:3::"),
        ("ipv6:%5Bfe80::1%25eth0%5D:1", "fe80::"),
        ("ipv6:%5B::ffff:192.0.2.7%5D:1", "192.0.2.7"),
        ("ipv4:127.0.0.1:1", LOCAL_ORIGIN),
        ("ipv4:127.8.8.8:1", LOCAL_ORIGIN),
        ("ipv6:%5B::1%5D:1", LOCAL_ORIGIN),
        ("ipv6:%5B::ffff:127.0.0.1%5D:1", LOCAL_ORIGIN),
        ("unix:", LOCAL_ORIGIN),
        ("unix:/run/parley.sock", LOCAL_ORIGIN),
        ("unix-abstract:parley", LOCAL_ORIGIN),
        ("ipv4:999.0.0.1:1", "unknown"),
        ("ipv6:x", "unknown"),
        ("", "unknown"),
    ],
)
def test_callers_are_counted_by_where_they_come_from(peer: str, origin: str) -> None:
    assert origin_of(peer) == origin
