"""The public door: a real server in its own process, callers with keys, and what every refusal is held to.

A call that is refused must leave nothing behind, say nothing it should not, and have the server serve on:
`Caller.refused` looks for all of it, so that a case has only to name its input and the answer.
"""

import asyncio
import contextlib
import importlib
import pkgutil
import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TypeVar

import grpc
import parley.v1
import yaml
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from model_server import ModelServer
from parley.v1 import (
    agent_service_pb2,
    api_key_service_pb2,
    content_pb2,
    conversation_service_pb2,
    error_reason_pb2,
    run_event_pb2,
    run_pb2,
)
from parley_server.llm import offline
from rpc.chassis import Failure, Metadata, bearer, failure_of
from server_process import running_server

CALL_TIMEOUT_S = 30.0
# The machine may be busy with other tests, and a call that is turned away for that is no answer to what was sent.
PATIENT = {"PARLEY_SERVER__OVERLOAD_LAG_S": "60"}
# The offline model, which for once calls a tool with results too large to be told whole.
MANY_WORDS = "many words"
ASK_FIRST = "ask first"
WORDY_TOOLS = {
    "PARLEY_TOOLS__MODULES": "wordy_tools",
    "PARLEY_MODEL__API_KEY": "none",
    "PARLEY_MODEL__NAME": "offline",
    "PARLEY_MODEL__ALLOWED": "offline-*",
}
SERVICES = [
    service
    for module in pkgutil.iter_modules(parley.v1.__path__, "parley.v1.")
    if module.name.endswith("_pb2")
    for service in importlib.import_module(module.name).DESCRIPTOR.services_by_name.values()
]
# Every request is of one rpc, so its type says which one.
METHODS: dict[str, MethodDescriptor] = {
    method.input_type.full_name: method for service in SERVICES for method in service.methods
}

_INTERNALS = re.compile(
    r"Traceback|\.py\b|/(?:home|usr|work|tmp|etc)/|<class|\w(?:Error|Exception)\b|\bSELECT\b|sqlite|asyncpg"
)
# Shorter ones stand in any sentence.
_TELLING_CHARACTERS = 8

M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class Caller:
    """Somebody with a credential, on the server's one channel."""

    channel: grpc.aio.Channel
    metadata: Metadata = ()

    def saying(self, *metadata: tuple[str, str | bytes]) -> "Caller":
        """Return the same caller with more metadata."""
        return replace(self, metadata=(*self.metadata, *metadata))

    async def ask(self, request: Message, answer: type[M]) -> M:
        """Call the one rpc that takes this request; of a stream, return the first message."""
        return answer.FromString(await self.ask_raw(request.DESCRIPTOR.full_name, request.SerializeToString()))

    async def ask_raw(self, request_type: str, raw: bytes) -> bytes:
        """Call the rpc that takes such requests with these bytes."""
        method = METHODS[request_type]
        path = f"/{method.containing_service.full_name}/{method.name}"
        metadata = grpc.aio.Metadata(*self.metadata)
        if not method.server_streaming:
            unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(path)
            return await unary(raw, metadata=metadata, timeout=CALL_TIMEOUT_S)
        streaming: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = self.channel.unary_stream(path)
        call = streaming(raw, metadata=metadata, timeout=CALL_TIMEOUT_S)
        first = await call.read()
        call.cancel()
        return first if isinstance(first, bytes) else b""

    async def events(self, request: Message) -> list[run_event_pb2.RunEvent]:
        """Call RunAgent or WatchRun, to the end; heartbeats are left out."""
        answers = [agent_service_pb2.WatchRunResponse.FromString(raw).event async for raw in self._stream(request)]
        return [event for event in answers if event.seq]

    async def hears(self, run_id: str) -> None:
        """Follow a run until its model has begun to speak."""
        call = self._stream(agent_service_pb2.WatchRunRequest(run_id=run_id))
        async for raw in call:
            if agent_service_pb2.WatchRunResponse.FromString(raw).event.HasField("text_delta"):
                break
        call.cancel()

    def _stream(self, request: Message) -> "grpc.aio.UnaryStreamCall[bytes, bytes]":
        method = METHODS[request.DESCRIPTOR.full_name]
        path = f"/{method.containing_service.full_name}/{method.name}"
        streaming: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = self.channel.unary_stream(path)
        return streaming(
            request.SerializeToString(), metadata=grpc.aio.Metadata(*self.metadata), timeout=CALL_TIMEOUT_S
        )

    async def refused(self, request: Message) -> Failure:
        """Make a call that must fail, and hold its end to what is promised of every refusal."""
        return await self.refused_raw(
            request.DESCRIPTOR.full_name, request.SerializeToString(), list(strings_of(request))
        )

    async def refused_raw(self, request_type: str, raw: bytes, sent: list[str]) -> Failure:
        """Do as `refused` does; `sent` is what the answer must not repeat."""
        owner = replace(self, metadata=tuple(pair for pair in self.metadata if pair[0] == "authorization"))
        before = await owner.belongings()
        async with asyncio.timeout(CALL_TIMEOUT_S):
            try:
                await self.ask_raw(request_type, raw)
            except grpc.aio.AioRpcError as error:
                failure = failure_of(error)
            else:
                raise AssertionError("the call succeeded")
        check_words(failure, [*sent, *(value for _, value in self.metadata if isinstance(value, str))])
        assert await owner.belongings() == before
        return failure

    async def belongings(self) -> tuple[list[str], list[str]]:
        """Return what of the caller's a write would change; that it answers shows that the server still serves."""
        conversations = await self.ask(
            conversation_service_pb2.ListConversationsRequest(), conversation_service_pb2.ListConversationsResponse
        )
        runs = await self.ask(agent_service_pb2.ListRunsRequest(), agent_service_pb2.ListRunsResponse)
        return (
            sorted(f"{each.conversation_id} {each.etag}" for each in conversations.conversations),
            [each.run_id for each in runs.runs],
        )

    async def converse(self, title: str = "") -> str:
        """Make a conversation; return its id."""
        request = conversation_service_pb2.CreateConversationRequest(title=title)
        made = await self.ask(request, conversation_service_pb2.CreateConversationResponse)
        return made.conversation.conversation_id

    async def start(self, spec: run_pb2.RunSpec, request_id: str = "") -> run_pb2.Run:
        """Start a run."""
        request = agent_service_pb2.StartRunRequest(run=spec, request_id=request_id)
        return (await self.ask(request, agent_service_pb2.StartRunResponse)).run

    async def run_to_the_end(self, spec: run_pb2.RunSpec) -> list[run_event_pb2.RunEvent]:
        """Run an agent; return the events."""
        return await self.events(agent_service_pb2.RunAgentRequest(run=spec))


@dataclass(frozen=True)
class Door:
    """A running server with two users who have nothing in common, and its administrator."""

    address: str
    ann: Caller
    bob: Caller
    admin: Caller


@contextlib.asynccontextmanager
async def open_door(data_dir: Path, environment: Mapping[str, str] | None = None) -> AsyncIterator[Door]:
    """Serve for a block. However bad the input was, no fault of the server may be in its log at the end."""
    async with contextlib.AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(ModelServer(wordy_script()))
        # Where the server runs, so that it is imported without more ado.
        shutil.copy(Path(__file__).with_name("wordy_tools.py"), data_dir)
        wordy = {"PARLEY_MODEL__BASE_URL": upstream.base_url, **WORDY_TOOLS}
        environment = {**PATIENT, **wordy, **(environment or {})}
        server = stack.enter_context(running_server(data_dir, environment=environment))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(server.address))
        admin = Caller(channel)
        ann, bob = [Caller(channel, bearer(await issue(admin, user_id))) for user_id in ("ann", "bob")]
        yield Door(server.address, ann, bob, admin)
        assert "internal_error" not in server.log
        assert "Traceback" not in server.log


async def issue(admin: Caller, user_id: str, *scopes: str) -> str:
    """Make a key of a user; return its text."""
    request = api_key_service_pb2.CreateApiKeyRequest(user_id=user_id, scopes=scopes)
    return (await admin.ask(request, api_key_service_pb2.CreateApiKeyResponse)).secret


async def comes_true(condition: Callable[[], bool]) -> None:
    """Wait for what takes a moment."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come")


def check_words(failure: Failure, sent: list[str]) -> None:
    """Hold an error to the enumeration, and to saying neither what is inside nor what came from outside."""
    assert f"ERROR_REASON_{failure.reason}" in error_reason_pb2.ErrorReason.keys()  # noqa: SIM118  # no mapping
    told = failure.message + "".join(str(detail) for name, detail in failure.details.items() if name != "RequestInfo")
    assert not _INTERNALS.search(told), told
    echoed = [text for text in sent if len(text) >= _TELLING_CHARACTERS and text in told]
    assert not echoed


def strings_of(message: Message) -> Iterator[str]:
    """Return every text in a message, the values of its maps with them; keys are names, which errors tell."""
    for field, value in message.ListFields():
        if isinstance(value, Message):
            yield from strings_of(value)
        elif isinstance(value, str):
            yield value
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            yield from (text for text in value.values() if isinstance(text, str))
        elif field.message_type is not None:
            for item in value:
                yield from strings_of(item)
        elif field.type == field.TYPE_STRING:
            yield from value


def text_spec(text: str = "hello", conversation_id: str = "") -> run_pb2.RunSpec:
    """What the simplest run is asked for with."""
    return run_pb2.RunSpec(input=[content_pb2.ContentPart(text=text)], conversation_id=conversation_id)


def wordy_script() -> dict[str, object]:
    """Return the script that ships with the server, with rules before all others."""
    script = yaml.safe_load(resources.files(offline).joinpath("default_script.yaml").read_text(encoding="utf-8"))
    rules = [
        {"when": f"^{word}$", "tool_calls": [{"name": word.replace(" ", "_")}]} for word in (MANY_WORDS, ASK_FIRST)
    ]
    return {"rules": [*rules, *script["rules"]]}
