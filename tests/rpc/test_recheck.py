"""Streams go no further than their credentials: each is looked at again under way."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from parley.v1 import agent_service_pb2 as pb
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import StorageUnavailableError
from rpc.chassis import Chassis, bearer, failed, failure_of, running

CODE = grpc.StatusCode


class Trickle:
    """A stream of events without end, and what ended it in the end."""

    def __init__(self) -> None:
        self.ends: list[BaseException] = []

    async def __call__(
        self, context: RequestContext, request: pb.WatchRunRequest
    ) -> AsyncGenerator[pb.WatchRunResponse]:
        seq = 0
        try:
            while True:
                seq += 1
                response = pb.WatchRunResponse()
                response.event.seq = seq
                response.event.run_id = request.run_id
                response.event.conversation_id = context.user_id
                yield response
                await asyncio.sleep(0.01)
        except BaseException as error:
            self.ends.append(error)
            raise


@pytest.fixture
async def chassis() -> AsyncIterator[Chassis]:
    async with running(recheck_s=0.1, max_failures_per_minute=2) as serving:
        serving.runs.stream = Trickle()
        yield serving


async def seen(call: "grpc.aio.UnaryStreamCall[pb.WatchRunRequest, pb.WatchRunResponse]") -> tuple[list[int], str]:
    """Read a stream to its end; return the numbers of its events, and the status and reason it ended with."""
    seqs: list[int] = []
    try:
        async for response in call:
            seqs.append(response.event.seq)  # noqa: PERF401  # what comes before an error counts
    except grpc.aio.AioRpcError as error:
        failure = failure_of(error)
        return seqs, f"{failure.code.name} {failure.reason}"
    return seqs, "OK"


async def test_a_stream_ends_with_its_key_after_a_whole_event(chassis: Chassis) -> None:
    key = chassis.keys.issue("ann")
    key_id = key.split("_")[1]
    watching = asyncio.create_task(seen(chassis.watch_run(bearer(key), timeout=30)))
    await asyncio.sleep(0.5)
    assert not watching.done()
    stored = chassis.keys.stored[key_id]
    chassis.keys.stored[key_id] = replace(stored, key=replace(stored.key, revoke_time=datetime.now(UTC)))
    chassis.auth.forget(key_id)
    seqs, end = await watching
    assert end == "UNAUTHENTICATED CREDENTIALS_INVALID"
    assert seqs == list(range(1, len(seqs) + 1))
    assert len(seqs) > 10
    # Whoever makes the stream is told that its caller has not gone by himself.
    assert isinstance(chassis.runs.stream, Trickle)
    assert [type(error).__name__ for error in chassis.runs.stream.ends] == ["CredentialsInvalidError"]


async def test_a_stream_ends_when_its_keys_time_does(chassis: Chassis) -> None:
    key = chassis.keys.issue("ann", expire_time=datetime.now(UTC) + timedelta(seconds=0.4))
    _, end = await seen(chassis.watch_run(bearer(key), timeout=30))
    assert end == "UNAUTHENTICATED CREDENTIALS_INVALID"


async def test_where_nobody_can_tell_the_caller_may_come_back(chassis: Chassis) -> None:
    key = chassis.keys.issue("ann")
    watching = asyncio.create_task(seen(chassis.watch_run(bearer(key), timeout=30)))
    await asyncio.sleep(0.1)
    chassis.keys.fault = StorageUnavailableError()
    chassis.auth.forget_all()
    assert (await watching)[1] == "UNAVAILABLE AUTH_UNAVAILABLE"


async def test_a_good_credential_carries_its_stream_on(chassis: Chassis) -> None:
    key = chassis.keys.issue("ann")
    calls = [chassis.watch_run(bearer(key), timeout=30), chassis.watch_run(timeout=30)]
    readings = [asyncio.create_task(seen(call)) for call in calls]
    await asyncio.sleep(1.5)
    assert not any(reading.done() for reading in readings)
    # Looked up when it began, and again once what was known of it was a second old.
    assert len(chassis.keys.lookups) >= 2
    for call, reading in zip(calls, readings, strict=True):
        call.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def test_streams_that_end_so_are_no_guesses(chassis: Chassis) -> None:
    key = chassis.keys.issue("ann")
    watching = [asyncio.create_task(seen(chassis.watch_run(bearer(key), timeout=30))) for _ in range(30)]
    await asyncio.sleep(0.1)
    chassis.keys.stored.clear()
    chassis.auth.forget_all()
    assert {end for _, end in await asyncio.gather(*watching)} == {"UNAUTHENTICATED CREDENTIALS_INVALID"}
    bob = chassis.keys.issue("bob")
    assert (await chassis.get_run(metadata=bearer(bob))).run.agent_id == "bob"
    assert (await failed(chassis.get_run(metadata=bearer(key)))).code == CODE.UNAUTHENTICATED
