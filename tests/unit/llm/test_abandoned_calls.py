"""Model calls that are given up at any moment leave nothing behind, and a slow reader holds up its model alone."""

import asyncio
import gc
import logging
import os
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import overload

import pytest
from model_server import ModelServer, RawAnswer, text_frame
from parley_server.llm.model_service import FinishChunk, ModelService, TextChunk
from parley_server.llm.openai_service import OpenAIService
from parley_server.llm.resilient_service import ResilientService
from parley_server.llm.retry import RetryPolicy
from unit.llm.service_calls import CONTEXT, HELLO

AT_ONCE = 50


@asynccontextmanager
async def service_at(upstream: ModelServer) -> AsyncIterator[tuple[ModelService, OpenAIService]]:
    inner = OpenAIService(upstream.settings())
    service = ResilientService(inner, "tested", RetryPolicy(2))
    await read(service)
    try:
        yield service, inner
    finally:
        await service.aclose()


async def read(service: ModelService) -> None:
    async with aclosing(service.stream(CONTEXT, HELLO)) as chunks:
        assert isinstance([chunk async for chunk in chunks][-1], FinishChunk)


async def give_up(service: ModelService, after_s: float) -> bool:
    """Ask, and cancel that after a time; return whether it was cancelled before its end."""
    reading = asyncio.create_task(read(service))
    if after_s:
        await asyncio.sleep(after_s)
    cancelled = reading.cancel()
    await asyncio.wait([reading])
    return cancelled and reading.cancelled()


async def active_connections(inner: OpenAIService) -> int:
    """Count the places that the pool holds to be taken; those of connections nobody uses are free."""
    upstream = await inner._upstream.result()
    session = upstream._opened
    connector = None if session is None else session.connector
    return 0 if connector is None else len(connector._acquired)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident_kib() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


async def give_up_many(upstream: ModelServer, service: ModelService, calls: int, choose: random.Random) -> int:
    """Give up so many calls at random moments, AT_ONCE at a time; return how many were not over by then."""
    cancelled = 0
    for _ in range(calls // AT_ONCE):
        upstream.requests.clear()
        moments = [choose.choice((0.0, choose.uniform(0, 0.002), choose.uniform(0, 0.1))) for _ in range(AT_ONCE)]
        cancelled += sum(await asyncio.gather(*(give_up(service, moment) for moment in moments)))
    return cancelled


async def settle(inner: OpenAIService) -> None:
    """Wait until the server, too, has seen that its callers are gone."""
    async with asyncio.timeout(10):
        while await active_connections(inner):  # noqa: ASYNC110  # the pool tells nobody
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    gc.collect()


@pytest.fixture
async def upstream(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ModelServer]:
    # It tells of every caller who hangs up, and pytest keeps every word.
    monkeypatch.setattr(logging.getLogger("aiohttp.server"), "disabled", True)
    rule = {"text": "one two three", "first_delay_ms": 1, "chunk_delay_ms": 1}
    async with ModelServer({"rules": [rule]}) as server:
        yield server


async def check_nothing_is_left(upstream: ModelServer, calls: int, seed: int) -> None:
    async with service_at(upstream) as (service, inner):
        tasks, before = len(asyncio.all_tasks()), descriptors()
        cancelled = await give_up_many(upstream, service, calls, random.Random(seed))
        assert cancelled > calls // 2
        await settle(inner)
        assert await active_connections(inner) == 0
        # Connections that nobody uses, at both ends, are not left over but kept.
        assert descriptors() <= before + 2 * AT_ONCE
        assert len(asyncio.all_tasks()) <= tasks + AT_ONCE
        await read(service)
    async with asyncio.timeout(10):
        while descriptors() > before or len(asyncio.all_tasks()) > tasks:  # noqa: ASYNC110  # the server is told nothing
            await asyncio.sleep(0.05)


async def test_calls_given_up_at_any_moment_leave_nothing(upstream: ModelServer) -> None:
    await check_nothing_is_left(upstream, 2000, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_a_hundred_thousand_calls_given_up_leave_nothing_and_take_no_memory(upstream: ModelServer) -> None:
    await check_nothing_is_left(upstream, 5000, seed=2)
    before = resident_kib()
    for seed in range(20):
        await check_nothing_is_left(upstream, 5000, seed=seed + 3)
    assert resident_kib() - before < 16 * 1024


async def test_two_hundred_streams_at_once(upstream: ModelServer) -> None:
    async with service_at(upstream) as (service, inner):
        await asyncio.gather(*(read(service) for _ in range(200)))
        await settle(inner)
        assert await active_connections(inner) == 0


class CountedReads(Sequence[bytes]):
    """The same read again and again, and how often it was taken."""

    def __init__(self, read: bytes, length: int) -> None:
        self._read, self._length = read, length
        self.taken = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(self._length):
            self.taken += 1
            yield self._read

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        return self._read if isinstance(index, int) else [self._read]


async def test_a_model_waits_for_a_reader_who_does_not_read(upstream: ModelServer) -> None:
    reads = CountedReads(text_frame("x" * 65_000), 2000)
    async with service_at(upstream) as (service, _):
        upstream.enqueue(RawAnswer(reads))
        async with aclosing(service.stream(CONTEXT, HELLO)) as chunks:
            assert isinstance(await anext(chunks), TextChunk)
            taken = -1
            while taken != reads.taken:
                taken = reads.taken
                await asyncio.sleep(0.2)
            # What the two ends' sockets hold, a few megabytes; all would be 130.
            assert taken * 65_000 < 30_000_000
            assert isinstance(await anext(chunks), TextChunk)
