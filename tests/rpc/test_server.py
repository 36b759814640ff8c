"""The server as a whole: what it refuses to start with, where it listens, how it stops."""

import asyncio
import os
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message import Message
from parley.v1 import agent_service_pb2 as pb
from parley_server.auth.factory import AuthChain
from parley_server.auth.local import operating_system_user
from parley_server.auth.policy import MethodWithoutRuleError
from parley_server.domain.context import RequestContext
from parley_server.rpc.drain import Drain
from parley_server.rpc.listener import Listener, ListenError, ServerSettings
from parley_server.rpc.server import RpcServer
from parley_server.rpc.service import Service
from rpc.chassis import AGENT_SERVICE, Runs, failed, running


class Unruled:
    """Serves a service whose proto forgot to say who may call it."""

    async def get_thing(self, context: RequestContext, request: Message) -> Message:
        raise AssertionError((context, request))


def unruled_service() -> Service:
    file = descriptor_pb2.FileDescriptorProto(name="unruled.proto", package="unruled", syntax="proto3")
    file.message_type.add(name="Thing")
    service = file.service.add(name="ThingService")
    service.method.add(name="GetThing", input_type=".unruled.Thing", output_type=".unruled.Thing")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return Service(pool.FindServiceByName("unruled.ThingService"), Unruled())


async def test_a_method_without_an_access_rule_keeps_the_server_from_starting() -> None:
    with pytest.raises(MethodWithoutRuleError, match=r"/unruled.ThingService/GetThing"):
        RpcServer([unruled_service()], AuthChain([]), Drain())


class Half(Runs):
    """Lacks an rpc."""

    cancel_run = None  # type: ignore[assignment]  # the fault under test


class Blocking(Runs):
    """Serves an rpc by a method that would block the loop."""

    def cancel_run(self, context: RequestContext, request: Message) -> Message:  # type: ignore[override]  # the fault
        raise AssertionError((context, request))


@pytest.mark.parametrize("servicer", [Half, Blocking])
async def test_a_servicer_without_an_async_method_for_each_rpc_is_refused(servicer: type[Runs]) -> None:
    with pytest.raises(TypeError, match=r"must serve /parley.v1.AgentService/CancelRun by an async method"):
        RpcServer([Service(AGENT_SERVICE, servicer())], AuthChain([]), Drain())


async def test_a_free_port_is_taken_and_told() -> None:
    async with running(listen="127.0.0.1:0") as chassis:
        assert int(chassis.address.removeprefix("127.0.0.1:")) > 0


async def test_a_port_that_is_taken_is_said_to_be() -> None:
    async with running() as chassis:
        other = RpcServer([Service(AGENT_SERVICE, Runs())], AuthChain([]), Drain())
        with pytest.raises(ListenError, match=f"{chassis.address} is in use"):
            await other.start(ServerSettings(listen=chassis.address))


async def test_a_unix_socket_serves_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "parley.sock"
    umask = os.umask(0o022)
    os.umask(umask)
    async with running(listen=f"unix:{path}") as chassis:
        assert chassis.address == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (await chassis.get_run()).run.agent_id == operating_system_user()
        other = RpcServer([Service(AGENT_SERVICE, Runs())], AuthChain([]), Drain())
        with pytest.raises(ListenError, match="another server listens"):
            await other.start(ServerSettings(listen=f"unix:{path}"))
    assert os.umask(umask) == umask


async def test_a_unix_socket_that_was_left_behind_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "parley.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with running(listen=f"unix:{path}") as chassis:
        assert (await chassis.get_run()).run.run_id == "run"


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.org:0"])
async def test_other_machines_are_kept_out_until_there_is_tls(listen: str) -> None:
    server = RpcServer([Service(AGENT_SERVICE, Runs())], AuthChain([]), Drain())
    with pytest.raises(ListenError, match="allow_insecure_listen"):
        await server.start(ServerSettings(listen=listen))


async def test_other_machines_are_let_in_where_the_operator_says_so() -> None:
    server = RpcServer([Service(AGENT_SERVICE, Runs())], AuthChain([]), Drain())
    address = await server.start(ServerSettings(listen="0.0.0.0:0", allow_insecure_listen=True))
    assert address.startswith("0.0.0.0:")
    await server.stop(0)


@pytest.mark.parametrize(
    "listen", ["", "50051", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "::1:50051", "unix:", "a b:1"]
)
def test_what_is_no_address_is_said_to_be(listen: str) -> None:
    with pytest.raises(ListenError, match="is no address"):
        Listener.parse(listen)


@pytest.mark.parametrize(
    ("listen", "is_local"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("unix:/tmp/x", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("localhost.example:1", False),
    ],
)
def test_which_addresses_are_local(listen: str, is_local: bool) -> None:
    assert Listener.parse(listen).is_local is is_local


async def test_a_stop_ends_streams_lets_calls_finish_and_takes_no_more() -> None:
    async with running() as chassis:
        going_on = asyncio.Event()

        async def slow(_context: RequestContext, _request: pb.GetRunRequest) -> pb.GetRunResponse:
            going_on.set()
            await asyncio.sleep(0.3)
            return pb.GetRunResponse()

        async def quiet(_context: RequestContext, _request: pb.WatchRunRequest) -> AsyncGenerator[bytes]:
            yield b""
            await chassis.drain.bound(asyncio.Event().wait)

        chassis.runs.answer, chassis.runs.stream = slow, quiet
        stream = chassis.watch_run()
        await stream.read()
        call = asyncio.ensure_future(finished(chassis.get_run()))
        await going_on.wait()
        stopping = asyncio.ensure_future(chassis.server.stop(10))
        failure = await failed(stream.read())
        assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING")
        assert await call == pb.GetRunResponse()
        async with asyncio.timeout(2):
            await stopping
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await chassis.get_run()
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_a_call_that_comes_while_the_server_drains_is_told_to_try_again() -> None:
    async with running() as chassis:
        await chassis.get_run()
        chassis.drain.start()
        failure = await failed(chassis.get_run())
        assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING")
        assert "RetryInfo" in failure.details


async def finished(call: "grpc.aio.UnaryUnaryCall[pb.GetRunRequest | bytes, pb.GetRunResponse]") -> pb.GetRunResponse:
    return await call


@pytest.mark.parametrize("part", ["AioServer", "AioServer._request_call", "channelz_get_servers"])
def test_a_grpcio_that_is_built_in_another_way_is_refused_at_the_start(part: str, tmp_path: Path) -> None:
    owner, _, name = f"cygrpc.{part}".rpartition(".")
    lost = f"{owner} = type('AioServer', (), {{}})" if name == "_request_call" else f"del {owner}.{name}"
    program = (
        f"import sys; from grpc._cython import cygrpc; {lost}; from parley_server.__main__ import main; "
        f"sys.argv = ['parley-server', 'serve', '--listen', '127.0.0.1:0', '--data-dir', {str(tmp_path)!r}]; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 78
    assert done.stderr.splitlines()[-1].startswith(f"parley-server: grpcio {grpc.__version__} is none")
