"""Rows 1 to 13: what is wrong below the messages. Most answers are the gRPC core's own; they are pinned here, so that a
change of them is noticed.
"""

import asyncio
import gzip
import os
from collections.abc import AsyncIterator

import grpc
import pytest
from catalogue.door import comes_true
from parley.v1 import agent_service_pb2 as pb
from rpc.chassis import GET_RUN, QUICK, WATCH_RUN, Chassis, running
from rpc.raw_http2 import Header, RawAnswer, RawClient, call_headers, framed

CODE = grpc.StatusCode
GOOD = framed(pb.GetRunRequest(run_id="run").SerializeToString())
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
MEBIBYTE = 1024 * 1024
# It would tell whoever asks of every connection there is.
CHANNELZ = "/grpc.channelz.v1.Channelz/GetTopChannels"


@pytest.fixture(scope="module")
async def quick() -> AsyncIterator[Chassis]:
    """A server of little patience; after all that was done to it, it serves."""
    async with running(limits=QUICK) as chassis:
        yield chassis
        assert (await chassis.get_run()).run.run_id == "run"


async def answer_to(
    chassis: Chassis, headers: list[Header], body: list[bytes] | None = None, *, end: bool = True
) -> RawAnswer:
    async with RawClient(chassis.address) as client:
        return await client.answer(await client.request(headers, [GOOD] if body is None else body, end=end))


async def status_of(chassis: Chassis, *metadata: Header, body: list[bytes] | None = None) -> grpc.StatusCode:
    answer = await answer_to(chassis, [*call_headers(GET_RUN), *metadata], body)
    return next(code for code in CODE if code.value[0] == answer.status)


def without(name: str) -> list[Header]:
    return [header for header in call_headers(GET_RUN) if header[0] != name]


def with_(name: str, value: str | bytes) -> list[Header]:
    return [(key, value if key == name else old) for key, old in call_headers(GET_RUN)]


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x00\xf4\x01\x00\x00\xf0\x03\x03" + bytes(240),
        bytes(range(256)) * 4,
        PREFACE[:-9] + b"\xff" * 64,
    ],
    ids=["HTTP/1.1", "a TLS hello", "bytes", "frames that are none"],
)
async def test_what_is_no_http2_is_closed(quick: Chassis, sent: bytes) -> None:
    host, _, port = quick.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    async with asyncio.timeout(10):
        try:
            while await reader.read(65536):
                pass
        except ConnectionError:
            pass
    writer.close()


async def test_a_connection_that_says_nothing_holds_up_nobody(quick: Chassis) -> None:
    host, _, port = quick.address.rpartition(":")
    idle = [await asyncio.open_connection(host, int(port)) for _ in range(50)]
    for reader, writer in idle:
        writer.write(PREFACE)
        assert await reader.read(9)
    assert (await quick.get_run()).run.run_id == "run"
    for _, writer in idle:
        writer.close()


async def test_a_get_and_a_call_without_te_are_reset(quick: Chassis) -> None:
    assert (await answer_to(quick, with_(":method", "GET"))).reset
    assert (await answer_to(quick, without("te"))).reset


async def test_any_content_type_is_served(quick: Chassis) -> None:
    for headers in (with_("content-type", "text/plain"), without("content-type")):
        assert (await answer_to(quick, headers)).status == 0


@pytest.mark.parametrize("value", ["abc", "-5S", "5", ""])
async def test_a_timeout_that_is_none_is_internal(quick: Chassis, value: str) -> None:
    assert await status_of(quick, ("grpc-timeout", value)) == CODE.INTERNAL


async def test_a_deadline_that_has_passed_ends_the_call(quick: Chassis) -> None:
    for timeout in ("0S", "0n", "0m"):
        assert await status_of(quick, ("grpc-timeout", timeout)) == CODE.DEADLINE_EXCEEDED
    assert await status_of(quick, ("grpc-timeout", "99999999H")) == CODE.OK


async def test_compression_that_cannot_be_undone_is_internal(quick: Chassis) -> None:
    gzipped = framed(gzip.compress(GOOD[5:]), flag=1)
    assert await status_of(quick, ("grpc-encoding", "gzip"), body=[gzipped]) == CODE.OK
    assert await status_of(quick, ("grpc-encoding", "rot13"), body=[gzipped]) == CODE.INTERNAL
    assert await status_of(quick, body=[gzipped]) == CODE.INTERNAL
    garbage = framed(b"no gzip", flag=1)
    assert await status_of(quick, ("grpc-encoding", "gzip"), body=[garbage]) == CODE.INTERNAL


@pytest.mark.parametrize("size", [5, 60])
async def test_a_message_that_unpacks_to_too_much_is_refused(quick: Chassis, size: int) -> None:
    bomb = framed(gzip.compress(bytes(size * MEBIBYTE)), flag=1)
    assert await status_of(quick, ("grpc-encoding", "gzip"), body=pieces(bomb)) == CODE.RESOURCE_EXHAUSTED


def pieces(body: bytes) -> list[bytes]:
    """Cut a body into frames that HTTP/2 allows."""
    return [body[start : start + 16_000] for start in range(0, len(body), 16_000)]


async def test_a_message_in_frames_of_one_byte_is_whole(quick: Chassis) -> None:
    body = [GOOD[place : place + 1] for place in range(len(GOOD))]
    assert await status_of(quick, body=body) == CODE.OK


async def test_what_follows_the_first_message_is_not_looked_at(quick: Chassis) -> None:
    for body in ([GOOD, GOOD], [GOOD + b"trailing"], [framed(GOOD[5:], flag=7)]):
        assert await status_of(quick, body=body) in (CODE.OK, CODE.INVALID_ARGUMENT, CODE.INTERNAL)


@pytest.mark.parametrize(
    "path", ["/nothing", "GetRun", "", "/", "//", "/parley.v1.AgentService/getrun", GET_RUN + "/", CHANNELZ]
)
async def test_a_path_that_leads_nowhere_is_unimplemented(quick: Chassis, path: str) -> None:
    assert (await answer_to(quick, with_(":path", path))).status == CODE.UNIMPLEMENTED.value[0]


async def test_of_two_paths_the_last_one_is_called_under_its_own_policy(quick: Chassis) -> None:
    """A proxy that lets calls pass by the first one would be got round; the server itself is not."""
    unscoped = quick.keys.issue("ann", scopes=frozenset({"runs:write"}))
    health: Header = (":path", "/grpc.health.v1.Health/Check")
    others = [header for header in call_headers(GET_RUN) if header[0] != ":path"]
    authorization: Header = ("authorization", f"Bearer {unscoped}")
    last_is_run = [others[0], health, (":path", GET_RUN), *others[1:], authorization]
    assert (await answer_to(quick, last_is_run)).status == CODE.PERMISSION_DENIED.value[0]
    last_is_health = [others[0], (":path", GET_RUN), health, *others[1:], authorization]
    assert (await answer_to(quick, last_is_health, [framed(b"")])).status == 0


async def test_names_in_upper_case_and_bad_base64_are_internal(quick: Chassis) -> None:
    assert await status_of(quick, ("Authorization", "Bearer x")) == CODE.INTERNAL
    assert await status_of(quick, ("parley-context-bin", "!!!")) == CODE.INTERNAL


async def test_metadata_without_measure_is_refused(quick: Chassis) -> None:
    for metadata in ([("x-filler", "x" * 40_000)], [(f"x-{n}", "x") for n in range(2000)]):
        assert await status_of(quick, *metadata) == CODE.RESOURCE_EXHAUSTED


async def test_metadata_is_always_measured_alike(quick: Chassis) -> None:
    """Between a soft and a hard limit the core would refuse at random."""
    statuses = set()
    for _ in range(20):
        statuses.add(await status_of(quick, ("x-filler", "x" * 15_000)))
    assert statuses == {CODE.OK}


@pytest.mark.parametrize("how", ["reset", "close"])
@pytest.mark.parametrize("method", [GET_RUN, WATCH_RUN])
async def test_calls_that_are_given_up_leave_nothing_behind(quick: Chassis, method: str, how: str) -> None:
    await quick.get_run()
    before = len(asyncio.all_tasks())
    for _ in range(5):
        async with RawClient(quick.address) as client:
            for _ in range(20):
                stream = await client.call(method, [GOOD], end=False)
                if how == "reset":
                    await client.reset(stream)
    await comes_true(lambda: len(asyncio.all_tasks()) <= before)


async def test_calls_without_a_message_end_with_their_connection(quick: Chassis) -> None:
    async with RawClient(quick.address) as client:
        streams = [await client.call(GET_RUN, end=False) for _ in range(200)]
        last = await client.answer(streams[-1])
    assert last.status == CODE.DEADLINE_EXCEEDED.value[0]


async def test_connections_that_come_and_go_leave_no_file_open(quick: Chassis) -> None:
    await come_and_go(quick, 1000)


@pytest.mark.soak
async def test_ten_thousand_connections_leave_no_file_open(quick: Chassis) -> None:
    await come_and_go(quick, 10_000)


async def come_and_go(chassis: Chassis, connections: int) -> None:
    """Connect many times, with a call each."""
    await chassis.get_run()
    before = open_files()
    for _ in range(connections // 20):
        await asyncio.gather(*(one_call(chassis) for _ in range(20)))
    await comes_true(lambda: open_files() <= before + 5)


async def one_call(chassis: Chassis) -> None:
    async with RawClient(chassis.address) as client:
        assert (await client.answer(await client.call(GET_RUN, [GOOD]))).status == 0


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))
