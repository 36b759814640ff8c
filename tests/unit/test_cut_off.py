"""A cut-off ends the wait inside it and nothing else, and takes no one else's cancel for its own."""

import asyncio
from collections.abc import Callable

import pytest
from parley_server.cut_off import CutOff


async def wait_within(cut_off: CutOff) -> str:
    with cut_off:
        await asyncio.sleep(10)
    return "done"


async def ended(by: Callable[[CutOff, "asyncio.Task[str]"], None]) -> str | BaseException:
    """Return how a wait ends when `by` is done to it."""
    cut_off = CutOff(asyncio.get_running_loop())
    task = asyncio.ensure_future(wait_within(cut_off))
    await asyncio.sleep(0)
    by(cut_off, task)
    return (await asyncio.gather(task, return_exceptions=True))[0]


def cut_twice(cut_off: CutOff, _task: "asyncio.Task[str]") -> None:
    cut_off.cut()
    cut_off.cut()


def cancel(_cut_off: CutOff, task: "asyncio.Task[str]") -> None:
    task.cancel()


def cut_and_cancel(cut_off: CutOff, task: "asyncio.Task[str]") -> None:
    cut_off.cut()
    task.cancel()


async def test_a_wait_that_is_cut_times_out() -> None:
    assert isinstance(await ended(cut_twice), TimeoutError)


@pytest.mark.parametrize("by", [cancel, cut_and_cancel])
async def test_a_cancel_stays_one(by: Callable[[CutOff, "asyncio.Task[str]"], None]) -> None:
    assert isinstance(await ended(by), asyncio.CancelledError)


async def test_after_a_cut_the_task_goes_on_and_waits_again() -> None:
    cut_off = CutOff(asyncio.get_running_loop())
    loop = asyncio.get_running_loop()
    for _ in range(2):
        loop.call_soon(cut_off.cut)
        with pytest.raises(TimeoutError):
            await wait_within(cut_off)
        assert cut_off.is_cut
    with cut_off:
        await asyncio.sleep(0)
    assert not cut_off.is_cut
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_nothing_is_cut_where_nothing_waits() -> None:
    cut_off = CutOff(asyncio.get_running_loop())
    cut_off.cut()
    with cut_off:
        pass
    cut_off.cut()
    await asyncio.sleep(0)
    assert not cut_off.is_cut


async def test_an_error_inside_passes_as_it_is() -> None:
    with pytest.raises(ValueError, match="mine"), CutOff(asyncio.get_running_loop()):
        raise ValueError("mine")


def test_it_is_for_tasks_alone() -> None:
    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(RuntimeError), CutOff(loop):
            pass
    finally:
        loop.close()
