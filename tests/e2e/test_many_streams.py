"""Conformance case 28: a thousand answers that stream at once, ten words a second each."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
from e2e.conftest import Stubs, run_spec, stubs_on
from model_server import ModelServer
from parley.v1 import agent_service_pb2, run_event_pb2
from run_history import check_run, text_of
from server_process import running_server

STREAMS, CONNECTIONS = 1_000, 8
ANSWER = "one two three four five six seven eight nine ten eleven twelve"
DEADLINE_S = 100.0


async def answer(stubs: Stubs, number: int) -> list[run_event_pb2.RunEvent]:
    request = agent_service_pb2.RunAgentRequest(run=run_spec(f"Question {number}"))
    call = stubs.agents.RunAgent(request, timeout=DEADLINE_S)
    return [response.event async for response in call if response.event.seq]


async def test_a_thousand_streams_are_all_whole_and_none_has_more_messages_than_words(tmp_path: Path) -> None:
    script = {"rules": [{"text": ANSWER, "chunk_delay_ms": 100}]}
    async with ModelServer(script) as upstream, AsyncExitStack() as stack:
        environment = {"PARLEY_MODEL__BASE_URL": upstream.base_url, "PARLEY_MODEL__NAME": "ten-a-second"}
        server = stack.enter_context(running_server(tmp_path / "data", environment=environment))
        own = [("grpc.use_local_subchannel_pool", 1)]
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(server.address, options=own))
            for _ in range(CONNECTIONS)
        ]
        answers = await asyncio.gather(*(answer(stubs_on(channels[n % CONNECTIONS]), n) for n in range(STREAMS)))
    assert len({events[0].run_id for events in answers}) == STREAMS
    for events in answers:
        check_run(events)
        assert text_of(events) == ANSWER
        assert sum(event.HasField("text_delta") for event in events) <= len(ANSWER.split())
