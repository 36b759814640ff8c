"""Clients of AgentService: `grpc` opens runs, `watch` opens one run and the streams on it.

A run with messages before its own goes on with a conversation of its own, a copy of one that was held for the purpose.
PARLEY_API_KEY is sent where it is set.
"""

import os
from collections.abc import AsyncIterable, AsyncIterator
from itertools import cycle
from typing import TYPE_CHECKING

import grpc
from parley.v1.agent_service_pb2 import (
    RunAgentRequest,
    RunAgentResponse,
    StartRunRequest,
    WatchRunRequest,
    WatchRunResponse,
)
from parley.v1.agent_service_pb2_grpc import AgentServiceStub
from parley.v1.content_pb2 import ContentPart
from parley.v1.conversation_service_pb2 import ForkConversationRequest
from parley.v1.conversation_service_pb2_grpc import ConversationServiceStub
from parley.v1.run_pb2 import ModelOptions, RunSpec
from streaming.asked import Asked, Stream
from streaming.load import main
from streaming.script import Script

if TYPE_CHECKING:
    from parley.v1.agent_service_pb2_grpc import AgentServiceAsyncStub  # the stubs' own name

# Below the server's limit of streams on a connection.
STREAMS_PER_CHANNEL = 100


async def grpc_streams(asked: Asked) -> Stream:
    """Return what opens runs over as few connections as they need."""
    stubs = cycle(_stubs(asked.address, asked.streams))
    conversations = cycle(await _conversations(asked) if asked.history else [""])

    def stream() -> AsyncIterator[str]:
        request = RunAgentRequest(run=_spec(asked.model, conversation_id=next(conversations)))
        return _texts(next(stubs).RunAgent(request, metadata=_metadata()))

    return stream


async def watch_streams(asked: Asked) -> Stream:
    """Return what watches one run, which it starts."""
    stubs = cycle(_stubs(asked.address, asked.streams))
    started = await next(stubs).StartRun(StartRunRequest(run=_spec(asked.model)), metadata=_metadata())
    request = WatchRunRequest(run_id=started.run.run_id)
    return lambda: _texts(next(stubs).WatchRun(request, metadata=_metadata()))


async def _conversations(asked: Asked) -> list[str]:
    """Hold a conversation of so many messages and return the ids of as many copies as there are calls."""
    async with grpc.aio.insecure_channel(asked.address) as channel:
        agents, conversations = AgentServiceStub(channel), ConversationServiceStub(channel)
        conversation_id = ""
        for question in asked.texts()[::2]:
            request = RunAgentRequest(run=_spec(Script(1).model, question, conversation_id))
            async for response in agents.RunAgent(request, metadata=_metadata()):
                conversation_id = response.event.conversation_id
        fork = ForkConversationRequest(conversation_id=conversation_id)
        copies = [await conversations.ForkConversation(fork, metadata=_metadata()) for _ in range(asked.calls)]
    return [copy.conversation.conversation_id for copy in copies]


def _stubs(address: str, streams: int) -> "list[AgentServiceAsyncStub]":
    # A pool of their own: channels of one address share a connection otherwise.
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = -(-streams // STREAMS_PER_CHANNEL)
    return [AgentServiceStub(grpc.aio.insecure_channel(address, options)) for _ in range(channels)]


def _spec(model: str, text: str = "hi", conversation_id: str = "") -> RunSpec:
    options = ModelOptions(model=model)
    return RunSpec(input=[ContentPart(text=text)], model_options=options, conversation_id=conversation_id)


def _metadata() -> tuple[tuple[str, str], ...]:
    key = os.environ.get("PARLEY_API_KEY")
    return (("authorization", f"Bearer {key}"),) if key else ()


async def _texts(call: AsyncIterable[RunAgentResponse] | AsyncIterable[WatchRunResponse]) -> AsyncIterator[str]:
    async for response in call:
        if text := response.event.text_delta.text:
            yield text


if __name__ == "__main__":
    main({"grpc": grpc_streams, "watch": watch_streams})
