"""What the gRPC core does by the options it is given, seen from a client. Shipped values, where no test says otherwise.

`test_server_option_times.py` has those whose shipped values are too long for a test.
"""

import asyncio
import re
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from hyperframe.frame import DataFrame, GoAwayFrame, SettingsFrame
from parley.v1 import agent_service_pb2 as pb
from parley_client.channel import open_channel
from parley_server.domain.context import RequestContext
from parley_server.rpc.server_options import MAX_MESSAGE_BYTES, SERVER_OPTIONS
from rpc.chassis import GET_RUN, Chassis, running
from rpc.raw_connection import connected

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "server-options.md"
ANY_SIZE = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
REQUEST = b"\n\x03run"
KIB = 1024


def test_the_guide_has_every_option_with_its_value() -> None:
    rows = re.findall(r"^\| `(grpc\.[a-z0-9_.]+)` \| ([\d,]+) \|", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [(name, int(value.replace(",", ""))) for name, value in rows] == list(SERVER_OPTIONS)


async def test_a_connection_is_told_its_limits(chassis: Chassis) -> None:
    async with connected(chassis.address) as connection:
        settings = (await connection.frame(SettingsFrame)).settings
    assert settings[SettingsFrame.MAX_CONCURRENT_STREAMS] == 256
    assert settings[SettingsFrame.MAX_HEADER_LIST_SIZE] == 16 * KIB


def padded(message: bytes, size: int) -> bytes:
    """The message with a field that nobody knows, so that it has that many bytes: field 1000, its length on 4 bytes."""
    length = size - len(message) - 6
    prefix = b"\xc2\x3e" + bytes(length >> shift & 0x7F | (0x80 if shift < 21 else 0) for shift in (0, 7, 14, 21))
    return message + prefix + bytes(length)


async def code_of(call: Awaitable[object]) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("size", "code"),
    [(MAX_MESSAGE_BYTES, grpc.StatusCode.OK), (MAX_MESSAGE_BYTES + 1, grpc.StatusCode.RESOURCE_EXHAUSTED)],
)
async def test_a_message_has_at_most_4_mib_in_both_directions(size: int, code: grpc.StatusCode) -> None:
    assert MAX_MESSAGE_BYTES == 4 * KIB * KIB
    async with running(channel_options=ANY_SIZE) as chassis:
        assert await code_of(chassis.get_run(padded(REQUEST, size))) == code

        async def large(_context: RequestContext, _request: pb.GetRunRequest) -> bytes:
            return padded(b"", size)

        chassis.runs.answer = large
        assert await code_of(chassis.get_run()) == code


@pytest.mark.parametrize("kib", [9, 11, 13, 14, 15])
async def test_metadata_below_the_limit_is_always_taken(chassis: Chassis, kib: int) -> None:
    metadata = (("x-padding", "x" * kib * KIB),)
    codes = await asyncio.gather(*(code_of(chassis.get_run(metadata=metadata)) for _ in range(30)))
    assert set(codes) == {grpc.StatusCode.OK}


@pytest.mark.parametrize("kib", [16, 17, 20, 24, 31])
async def test_metadata_above_the_limit_is_never_taken(chassis: Chassis, kib: int) -> None:
    metadata = (("x-padding", "x" * kib * KIB),)
    codes = await asyncio.gather(*(code_of(chassis.get_run(metadata=metadata)) for _ in range(30)))
    assert set(codes) == {grpc.StatusCode.RESOURCE_EXHAUSTED}


async def test_calls_over_the_limit_of_a_connection_wait_in_the_client() -> None:
    async with running() as chassis:
        started, full, go = 0, asyncio.Event(), asyncio.Event()

        async def held(_context: RequestContext, _request: pb.GetRunRequest) -> pb.GetRunResponse:
            nonlocal started
            started += 1
            if started == 256:
                full.set()
            await go.wait()
            return pb.GetRunResponse()

        chassis.runs.answer = held
        calls = [asyncio.ensure_future(code_of(chassis.get_run(timeout=60))) for _ in range(300)]
        async with asyncio.timeout(20):
            await full.wait()
        await asyncio.sleep(0.2)
        assert started == 256
        go.set()
        codes = await asyncio.gather(*calls)
    assert len(codes) == 300
    # What had to wait is let in as places come free, and may find one not yet free: see the guide.
    assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}


async def test_a_client_that_pings_without_end_is_told_to_calm_down(chassis: Chassis) -> None:
    async with connected(chassis.address) as connection:
        await connection.call(GET_RUN, REQUEST)
        await connection.frame(DataFrame)
        for _ in range(4):
            await connection.ping()
        going = await connection.frame(GoAwayFrame)
        assert (going.error_code, going.additional_data) == (11, b"too_many_pings")
        assert await connection.closes()


async def test_parleys_own_client_repeats_what_a_crowded_connection_refused() -> None:
    async with running() as chassis:
        channel = open_channel(chassis.address, tls=False)
        own = replace(chassis, channel=channel)

        async def caller() -> list[grpc.StatusCode]:
            return [await code_of(own.get_run(timeout=60)) for _ in range(4)]

        codes = await asyncio.gather(*(caller() for _ in range(400)))
        await channel.close()
    assert {code for each in codes for code in each} == {grpc.StatusCode.OK}
