"""Patience counts waiting alone, whatever its one timer was set to before."""

import asyncio

import pytest
from parley_server.llm.model_service import ModelError
from parley_server.llm.patience import Patience

LONG_S = 10.0


async def test_waits_add_up_until_they_are_renewed() -> None:
    patience = Patience(0.3)
    await patience.wait(asyncio.sleep(0.2))
    patience.renew(0.3)
    await patience.wait(asyncio.sleep(0.2))
    with pytest.raises(ModelError) as raised:
        await patience.wait(asyncio.sleep(0.2))
    assert raised.value.reason == "MODEL_TIMEOUT"
    patience.close()


async def test_time_between_waits_is_not_counted() -> None:
    patience = Patience(0.1)
    assert await patience.wait(asyncio.sleep(0, "first")) == "first"
    await asyncio.sleep(0.2)
    assert await patience.wait(asyncio.sleep(0, "second")) == "second"
    patience.close()


@pytest.mark.parametrize(("before_s", "after_s"), [(LONG_S, 0.05), (0.05, 0.1)])
async def test_a_wait_is_cut_off_at_its_own_end_not_at_an_earlier_ones(before_s: float, after_s: float) -> None:
    loop = asyncio.get_running_loop()
    patience = Patience(before_s)
    await patience.wait(asyncio.sleep(0))
    patience.renew(after_s)
    began = loop.time()
    with pytest.raises(ModelError):
        await patience.wait(asyncio.sleep(LONG_S))
    assert after_s <= loop.time() - began < LONG_S
    patience.close()


async def test_a_closed_one_leaves_no_timer() -> None:
    patience = Patience(LONG_S)
    await patience.wait(asyncio.sleep(0))
    assert patience._timer is not None
    patience.close()
    assert patience._timer is None


async def test_a_time_out_of_the_awaited_counts_as_its_own() -> None:
    async def late() -> None:
        raise TimeoutError

    patience = Patience(LONG_S)
    with pytest.raises(ModelError):
        await patience.wait(late())
    patience.close()
