"""Calls that no gRPC library would make, sent by hand over HTTP/2: every one is answered."""

import asyncio
import base64
from collections.abc import AsyncIterator
from urllib.parse import unquote

import grpc
import pytest
from parley.v1 import agent_service_pb2 as pb
from rpc.chassis import GET_RUN, QUICK, WATCH_RUN, Chassis, Failure, read_failure, running
from rpc.raw_http2 import Headers, RawAnswer, RawClient, framed

GOOD = framed(pb.GetRunRequest(run_id="run").SerializeToString())
HEALTH = "/grpc.health.v1.Health/Check"


@pytest.fixture(scope="module")
async def quick() -> AsyncIterator[Chassis]:
    """A server of little patience."""
    async with running(limits=QUICK) as chassis:
        yield chassis


async def sent(
    chassis: Chassis, body: list[bytes], *, method: str = GET_RUN, end: bool = True, metadata: Headers | None = None
) -> RawAnswer:
    async with RawClient(chassis.address) as client:
        return await client.answer(await client.call(method, body, end=end, metadata=metadata))


def failure_of(answer: RawAnswer) -> Failure:
    raw = answer.headers["grpc-status-details-bin"]
    code = next(code for code in grpc.StatusCode if code.value[0] == answer.status)
    details = base64.b64decode(raw + "=" * (-len(raw) % 4))
    return read_failure(code, unquote(answer.headers["grpc-message"]), details, dict(answer.headers))


async def test_an_ordinary_call_is_answered(quick: Chassis) -> None:
    answer = await sent(quick, [GOOD])
    assert answer.status == 0
    assert pb.GetRunResponse.FromString(answer.body[5:]).run.run_id == "run"


@pytest.mark.parametrize("method", [GET_RUN, WATCH_RUN, HEALTH])
@pytest.mark.parametrize(
    "body",
    [
        pytest.param([], id="headers and the end"),
        pytest.param([b""], id="an empty frame and the end"),
        pytest.param([GOOD[:-1]], id="a message cut short"),
        pytest.param([GOOD[:3]], id="a prefix cut short"),
        pytest.param([framed(b"xx", length=100)], id="a prefix that promises more"),
    ],
)
async def test_a_call_without_a_whole_message_is_malformed(quick: Chassis, method: str, body: list[bytes]) -> None:
    failure = failure_of(await sent(quick, body, method=method))
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE")


@pytest.mark.parametrize("method", [GET_RUN, WATCH_RUN, HEALTH])
@pytest.mark.parametrize("body", [[], [GOOD[:4]]], ids=["headers alone", "half a prefix"])
async def test_a_message_that_does_not_come_is_not_waited_for(quick: Chassis, method: str, body: list[bytes]) -> None:
    failure = failure_of(await sent(quick, body, method=method, end=False))
    assert (failure.code, failure.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "MESSAGE_TIMEOUT")
    assert failure.metadata == {"timeout_s": "0.4"}


async def test_a_caller_who_may_not_call_is_refused_before_his_message_comes(quick: Chassis) -> None:
    answer = await sent(quick, [], end=False, metadata=[("authorization", "Bearer x")])
    assert failure_of(answer).reason == "CREDENTIALS_INVALID"


@pytest.mark.parametrize("length", [4 * 1024 * 1024 + 1, 2**32 - 1])
async def test_a_message_too_large_is_refused_by_its_prefix(quick: Chassis, length: int) -> None:
    answer = await sent(quick, [framed(b"x" * 100, length=length)], end=False)
    assert answer.status == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]


@pytest.mark.parametrize("raw", [b"\x0a\x02\xff\xfe", b"\x0a\x05abc", b"\xff" * 11, b"\x0b" * 200])
async def test_bytes_that_are_no_message_are_malformed(quick: Chassis, raw: bytes) -> None:
    assert failure_of(await sent(quick, [framed(raw)])).reason == "MALFORMED_MESSAGE"


async def test_fields_that_are_not_known_are_ignored(quick: Chassis) -> None:
    assert (await sent(quick, [framed(b"\x0a\x03run\xfa\x07\x03abc")])).status == 0


async def test_a_call_that_is_not_half_closed_is_served(quick: Chassis) -> None:
    assert (await sent(quick, [GOOD], end=False)).status == 0


async def test_metadata_over_the_limit_is_refused_also_before_the_client_knows_it(quick: Chassis) -> None:
    """The core does not hold a client to its limit that has not acknowledged it yet: the guard does."""
    metadata = [("x-filler", "x" * 12_000), ("x-more", "x" * 12_000)]
    answer = await sent(quick, [GOOD], metadata=metadata)
    assert answer.status == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]


@pytest.mark.parametrize("method", ["/parley.v1.AgentService/Nothing", "/nothing.Service/Nothing", "/"])
async def test_a_method_that_is_not_there_is_unimplemented(quick: Chassis, method: str) -> None:
    assert (await sent(quick, [GOOD], method=method)).status == grpc.StatusCode.UNIMPLEMENTED.value[0]


async def test_the_callers_own_deadline_ends_a_call(quick: Chassis) -> None:
    async with RawClient(quick.address) as client:
        stream = await client.call(GET_RUN, [], end=False, metadata=[("grpc-timeout", "100m")])
        answer = await client.answer(stream)
    assert answer.status == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]


async def test_calls_that_go_wrong_leave_nothing_behind(quick: Chassis) -> None:
    await sent(quick, [GOOD])
    before = len(asyncio.all_tasks())
    for body in ([], [GOOD[:-1]], [framed(b"\xff")]):
        for _ in range(10):
            await sent(quick, body)
    for _ in range(100):
        if len(asyncio.all_tasks()) <= before:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("calls are still under way")
