"""Streams that many are open of are read in bigger pieces; what a reader gets is the same."""

import asyncio
from collections.abc import Sequence

from model_server import DONE, ModelServer, RawAnswer, finish_frame, text_frame
from parley_server.llm.model_service import TextChunk
from parley_server.llm.openai_service import OpenAIService
from parley_server.llm.pace import MAX_REST_S, Pace, StreamPace
from unit.llm.service_calls import CONTEXT, HELLO, service_at

WORDS = tuple(f"word{number} " for number in range(40))
ANSWER = RawAnswer((*map(text_frame, WORDS), finish_frame() + DONE), pause_s=0.004)


async def texts_of(upstream: ModelServer, streams: int, beside: int) -> Sequence[list[str]]:
    """Ask for so many answers at once, while others are open beside them, and return the texts each was read in."""
    upstream.enqueue(*[ANSWER] * streams)
    async with service_at(upstream) as service:
        assert isinstance(service, OpenAIService)
        service._pace.open_streams = beside

        async def read() -> list[str]:
            chunks = service.stream(CONTEXT, HELLO)
            return [chunk.text async for chunk in chunks if isinstance(chunk, TextChunk)]

        return await asyncio.gather(*(read() for _ in range(streams)))


async def test_many_streams_are_read_in_bigger_pieces_and_whole(upstream: ModelServer) -> None:
    texts = await texts_of(upstream, 5, beside=10_000)
    assert {"".join(each) for each in texts} == {"".join(WORDS)}
    pieces = sum(map(len, texts))
    assert pieces < len(WORDS) * len(texts) / 2


async def test_few_streams_never_rest() -> None:
    pace = Pace()
    pace.open_streams = 24
    assert pace.rest_s == 0
    pace.open_streams = 25
    assert pace.rest_s > 0
    pace.open_streams = 10_000
    assert pace.rest_s == MAX_REST_S


async def test_a_first_chunk_and_slow_ones_are_not_held_up() -> None:
    pace = Pace()
    pace.open_streams = 10_000
    with StreamPace(pace) as stream:
        assert not await rested(stream)
        await asyncio.sleep(MAX_REST_S * 2)
        assert not await rested(stream)
        assert await rested(stream)
    assert pace.open_streams == 10_000


async def rested(stream: StreamPace) -> bool:
    """Tell whether a rest gives other work a turn."""
    others = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(others.set_result, None)
    await stream.rest()
    return others.done()
