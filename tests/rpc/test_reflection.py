"""Reflection, both versions: everything a tool needs to call what is served, and nothing for strangers."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2 as pb
from parley_server.rpc import reflection
from parley_server.rpc.interceptors.exchange import GuardLimits
from parley_server.rpc.listener import ServerSettings
from rpc.chassis import Chassis, Metadata, bearer, failed, running

V1, V1ALPHA = "grpc.reflection.v1", "grpc.reflection.v1alpha"
AGENTS = "parley.v1.AgentService"
Stream: TypeAlias = "grpc.aio.StreamStreamCall[bytes, pb.ServerReflectionResponse]"
Ask = pb.ServerReflectionRequest


@pytest.fixture(scope="module")
async def reflecting() -> AsyncIterator[Chassis]:
    async with running(reflection=True) as chassis:
        yield chassis


@asynccontextmanager
async def asking(chassis: Chassis, package: str = V1, metadata: Metadata = ()) -> AsyncIterator[Stream]:
    method: grpc.aio.StreamStreamMultiCallable[bytes, pb.ServerReflectionResponse] = chassis.channel.stream_stream(
        f"/{package}.ServerReflection/ServerReflectionInfo", None, pb.ServerReflectionResponse.FromString
    )
    call = method(metadata=grpc.aio.Metadata(*metadata), timeout=20)
    yield call
    call.cancel()


async def ask(call: Stream, request: pb.ServerReflectionRequest | bytes) -> pb.ServerReflectionResponse:
    await call.write(request if isinstance(request, bytes) else request.SerializeToString())
    answer = await call.read()
    assert isinstance(answer, pb.ServerReflectionResponse)
    return answer


async def asked(chassis: Chassis, request: pb.ServerReflectionRequest | bytes) -> pb.ServerReflectionResponse:
    async with asking(chassis) as call:
        return await ask(call, request)


def names(files: Sequence[bytes]) -> list[str]:
    return [descriptor_pb2.FileDescriptorProto.FromString(raw).name for raw in files]


@pytest.mark.parametrize("package", [V1, V1ALPHA])
async def test_services_are_listed(reflecting: Chassis, package: str) -> None:
    async with asking(reflecting, package) as call:
        answer = await ask(call, Ask(host="here", list_services="*"))
    listed = [service.name for service in answer.list_services_response.service]
    assert listed == ["grpc.health.v1.Health", f"{V1}.ServerReflection", f"{V1ALPHA}.ServerReflection", AGENTS]
    assert (answer.valid_host, answer.original_request.list_services) == ("here", "*")


@pytest.mark.parametrize(
    ("symbol", "file"),
    [
        (AGENTS, "parley/v1/agent_service.proto"),
        (f"{AGENTS}.RunAgent", "parley/v1/agent_service.proto"),
        ("parley.v1.RunEvent", "parley/v1/run_event.proto"),
        ("parley.v1.RunEvent.text_delta", "parley/v1/run_event.proto"),
        ("parley.v1.RunEvent.event", "parley/v1/run_event.proto"),
        ("parley.v1.RunState", "parley/v1/run.proto"),
        ("parley.v1.RUN_STATE_QUEUED", "parley/v1/run.proto"),
        ("parley.v1.access_policy", "parley/v1/access_policy.proto"),
        ("google.protobuf.Timestamp", "google/protobuf/timestamp.proto"),
        ("google.rpc.ErrorInfo", "google/rpc/error_details.proto"),
        ("grpc.health.v1.HealthCheckResponse.ServingStatus", "grpc_health/v1/health.proto"),
        ("grpc.health.v1.HealthCheckResponse.SERVING", "grpc_health/v1/health.proto"),
        (f"{V1}.ServerReflection", "grpc/reflection/v1/reflection.proto"),
        (f"{V1}.ServerReflectionRequest", "grpc/reflection/v1/reflection.proto"),
        (f"{V1ALPHA}.ServerReflection", "grpc_reflection/v1alpha/reflection.proto"),
    ],
)
async def test_a_symbol_is_found_with_all_that_its_file_imports(reflecting: Chassis, symbol: str, file: str) -> None:
    answer = await asked(reflecting, Ask(file_containing_symbol=symbol))
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(raw)
        for raw in answer.file_descriptor_response.file_descriptor_proto
    ]
    assert files[0].name == file
    sent = {each.name for each in files}
    assert len(sent) == len(files)
    assert {imported for each in files for imported in each.dependency} <= sent


async def test_what_a_stream_was_told_is_not_told_again_save_what_it_asks_for(reflecting: Chassis) -> None:
    async with asking(reflecting) as call:
        first = await ask(call, Ask(file_containing_symbol=AGENTS))
        again = await ask(call, Ask(file_containing_symbol=AGENTS))
        other = await ask(call, Ask(file_by_filename="parley/v1/run.proto"))
    assert len(names(first.file_descriptor_response.file_descriptor_proto)) > 5
    assert names(again.file_descriptor_response.file_descriptor_proto) == ["parley/v1/agent_service.proto"]
    assert names(other.file_descriptor_response.file_descriptor_proto) == ["parley/v1/run.proto"]


async def test_extensions_are_found(reflecting: Chassis) -> None:
    options = "google.protobuf.MethodOptions"
    numbers = (await asked(reflecting, Ask(all_extension_numbers_of_type=options))).all_extension_numbers_response
    assert (numbers.base_type_name, len(numbers.extension_number)) == (options, 1)
    wanted = pb.ExtensionRequest(containing_type=options, extension_number=numbers.extension_number[0])
    found = await asked(reflecting, Ask(file_containing_extension=wanted))
    assert names(found.file_descriptor_response.file_descriptor_proto)[0] == "parley/v1/access_policy.proto"
    none = await asked(reflecting, Ask(all_extension_numbers_of_type="parley.v1.Run"))
    assert list(none.all_extension_numbers_response.extension_number) == []


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (Ask(file_containing_symbol="parley.v1.Nothing"), 5),
        (Ask(file_containing_symbol=""), 5),
        (Ask(file_by_filename="../secrets.proto"), 5),
        (Ask(all_extension_numbers_of_type="parley.v1.Nothing"), 5),
        (Ask(all_extension_numbers_of_type="parley.v1.RunState"), 5),
        (Ask(file_containing_extension=pb.ExtensionRequest(containing_type="parley.v1.Run", extension_number=-1)), 5),
        (Ask(), 3),
        (b"", 3),
        (b"\xff\xff", 3),
        (Ask(file_containing_symbol="x" * reflection.MAX_REQUEST_BYTES), 3),
    ],
)
async def test_what_cannot_be_served_is_told_in_the_answer_and_the_stream_goes_on(
    reflecting: Chassis, request_: pb.ServerReflectionRequest | bytes, code: int
) -> None:
    async with asking(reflecting) as call:
        assert (await ask(call, request_)).error_response.error_code == code
        assert (await ask(call, Ask(list_services=""))).list_services_response.service


async def test_a_stream_ends_with_its_requests(reflecting: Chassis) -> None:
    async with asking(reflecting) as call:
        await ask(call, Ask(list_services=""))
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() == grpc.StatusCode.OK


async def test_a_stream_has_so_many_requests_and_no_more(reflecting: Chassis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflection, "MAX_REQUESTS", 3)
    async with asking(reflecting) as call:
        for _ in range(3):
            await ask(call, Ask(list_services=""))
        assert await call.read() is grpc.aio.EOF
        assert await call.code() == grpc.StatusCode.OK


async def test_there_are_so_many_streams_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflection, "MAX_STREAMS", 1)
    async with running(reflection=True) as chassis, asking(chassis) as first:
        await ask(first, Ask(list_services=""))
        async with asking(chassis) as second:
            failure = await failed(second.read())
            assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_OVERLOADED")
        await first.done_writing()
        assert await first.read() is grpc.aio.EOF
        async with asking(chassis) as third:
            assert (await ask(third, Ask(list_services=""))).list_services_response.service


async def test_a_stream_that_is_idle_is_ended() -> None:
    async with (
        running(reflection=True, limits=GuardLimits(next_message_s=0.2, tick_s=0.05)) as chassis,
        asking(chassis) as call,
    ):
        await ask(call, Ask(list_services=""))
        failure = await failed(call.read())
        assert (failure.code, failure.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "MESSAGE_TIMEOUT")


async def test_a_drain_ends_the_stream() -> None:
    async with running(reflection=True) as chassis, asking(chassis) as call:
        await ask(call, Ask(list_services=""))
        chassis.drain.start()
        failure = await failed(call.read())
        assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING")


@pytest.mark.parametrize("package", [V1, V1ALPHA])
async def test_a_stranger_is_told_nothing_before_he_asks(package: str) -> None:
    async with running(reflection=True, types=["api_key"]) as chassis:
        async with asking(chassis, package) as call:
            failure = await failed(call.read())
            assert (failure.code, failure.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID")
        async with asking(chassis, package, bearer(chassis.keys.issue("ann", scopes=frozenset()))) as call:
            assert (await ask(call, Ask(list_services=""))).list_services_response.service


@pytest.mark.parametrize("package", [V1, V1ALPHA])
async def test_without_the_setting_there_is_none(chassis: Chassis, package: str) -> None:
    async with asking(chassis, package) as call:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.read()
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("setting", "listen", "reflects"),
    [
        ("auto", "127.0.0.1:0", True),
        ("auto", "unix:/tmp/x", True),
        ("auto", "0.0.0.0:0", False),
        ("on", "0.0.0.0:0", True),
        ("off", "127.0.0.1:0", False),
    ],
)
def test_where_reflection_is_served(setting: str, listen: str, reflects: bool) -> None:
    settings = ServerSettings.model_validate({"listen": listen, "reflection": setting})
    assert settings.reflects is reflects
