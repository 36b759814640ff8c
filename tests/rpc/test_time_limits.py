"""Time limits on one timer: met a little late, never early, and no timer without a limit."""

import asyncio

import pytest
from parley_server.rpc.time_limits import TimeLimits

TICK_S = 0.02


async def slept(limits: TimeLimits, limit_s: float, sleep_s: float) -> float:
    """Sleep under a limit; return how long it took. Raises TimeoutError when the limit is met."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    limit = limits.limit(limit_s)
    try:
        with limit:
            await asyncio.sleep(sleep_s)
    except TimeoutError:
        assert limit.is_met
        assert loop.time() - start >= limit_s
        raise
    assert not limit.is_met
    return loop.time() - start


async def test_what_is_done_in_time_is_left_alone_and_what_is_not_is_cut_off() -> None:
    limits = TimeLimits(TICK_S)
    results = await asyncio.gather(
        *(slept(limits, 0.1, sleep_s) for sleep_s in (0, 0.05, 5, 5)), return_exceptions=True
    )
    assert [isinstance(result, TimeoutError) for result in results] == [False, False, True, True]


async def test_a_limit_can_be_counted_anew_or_lifted() -> None:
    limits = TimeLimits(TICK_S)
    with limits.limit(0.05) as limit:
        limit.restart(None)
        await asyncio.sleep(0.1)
        limit.restart(10)
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        await slept_after_a_restart(limits, 0.05)


async def slept_after_a_restart(limits: TimeLimits, limit_s: float) -> None:
    with limits.limit(10) as limit:
        limit.restart(limit_s)
        await asyncio.sleep(10)


async def test_an_error_and_a_cancel_pass_as_they_are() -> None:
    limits = TimeLimits(TICK_S)
    with pytest.raises(ValueError, match="mine"), limits.limit(10):
        raise ValueError("mine")
    task = asyncio.ensure_future(slept(limits, 10, 10))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_timer_stops_when_nothing_is_limited_and_starts_again() -> None:
    limits = TimeLimits(TICK_S)
    for _ in range(2):
        await slept(limits, 10, 0)
        assert limits._ticking
        await asyncio.sleep(3 * TICK_S)
        assert not limits._ticking
    with pytest.raises(TimeoutError):
        await slept(limits, 0.05, 10)
