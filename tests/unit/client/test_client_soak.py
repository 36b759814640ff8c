"""Connections that are cut at random, very often: nothing is lost and nothing comes twice."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from parley_client import ParleyClient, ParleyError, ReconnectLimits
from unit.client.event_log import answered
from unit.client.scripted_server import CuttingProxy, ScriptedRun, serving

LIMITS = ReconnectLimits(connect_for_s=30, reconnect_for_s=30, first_delay_s=0.0005, longest_delay_s=0.01)
PIECES = 500


@pytest.mark.parametrize(
    "reattachments",
    [300, pytest.param(10_000, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])],
)
async def test_reattachments_under_random_cuts_lose_and_repeat_nothing(reattachments: int) -> None:
    rng = random.Random(reattachments)
    causes: list[ParleyError] = []
    run = ScriptedRun(answered(*(f"{number} " for number in range(PIECES))))
    whole = [event.SerializeToString() for event in run.log]
    async with proxied(run, rng) as client:
        while len(causes) < reattachments:
            async with client.run("go", on_reconnect=lambda error, _: causes.append(error)) as stream:
                received = [event.SerializeToString() async for event in stream]
            assert received == whole
            assert stream.text == "".join(f"{number} " for number in range(PIECES))
    # Every attempt to attach again that reached the server went on where the reader was.
    assert all(call.after_seq < len(whole) for call in run.calls)


@asynccontextmanager
async def proxied(run: ScriptedRun, rng: random.Random) -> AsyncIterator[ParleyClient]:
    """A client behind a proxy that resets each connection after a random number of bytes."""
    async with serving(run) as address:
        proxy = CuttingProxy(address, bytes_until_cut=lambda: rng.randrange(100, 8_000))
        async with proxy.listening() as target, ParleyClient(target, "", reconnect=LIMITS) as client:
            yield client
