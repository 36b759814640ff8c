"""Rows 15, 16, 19 and 20 of the catalogue of bad input: credentials that are bad, too often, or not decided on."""

import asyncio
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.rpc import error_details_pb2
from parley_server.auth.api_key import PresentedKey
from parley_server.domain.api_key import Rotation
from rpc.chassis import HASH_KEY, Chassis, Failure, bearer, failed, running

CODE = grpc.StatusCode
HEADERS = {
    "none": "eyJhbGciOiJub25lIn0",
    "HS256": "eyJhbGciOiJIUzI1NiJ9",
    "unknown crit": "eyJhbGciOiJFUzI1NiIsImNyaXQiOlsieCJdfQ",
    "kid is a path": "eyJhbGciOiJIUzI1NiIsImtpZCI6Ii4uLy4uL2Rldi9udWxsIn0",
    "jku": "eyJhbGciOiJSUzI1NiIsImprdSI6Imh0dHBzOi8vZXhhbXBsZS5vcmcvIn0",
}
ANN = "eyJzdWIiOiJhbm4ifQ"


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS.keys())
@pytest.mark.parametrize("signature", ["", "x" * 43])
async def test_a_token_that_no_provider_takes_is_refused_and_nothing_is_asked(
    chassis: Chassis, header: str, signature: str
) -> None:
    before = len(chassis.keys.lookups)
    failure = await failed(chassis.get_run(metadata=bearer(f"{header}.{ANN}.{signature}")))
    assert (failure.code, failure.reason) == (CODE.UNAUTHENTICATED, "CREDENTIALS_INVALID")
    assert len(chassis.keys.lookups) == before


async def test_a_key_whose_time_is_over_is_told_like_one_that_never_was(chassis: Chassis) -> None:
    expired = chassis.keys.issue("ann", expire_time=datetime.now(UTC))
    failures = [await failed(chassis.get_run(metadata=bearer(key))) for key in (expired, PresentedKey.mint().text)]
    assert [(failure.code, failure.message) for failure in failures] == [
        (CODE.UNAUTHENTICATED, "missing or invalid credentials")
    ] * 2


async def test_the_secrets_of_a_rotated_key_work_side_by_side(chassis: Chassis) -> None:
    old = chassis.keys.issue("ann")
    key_id = old.split("_")[1]
    new = PresentedKey.with_new_secret(key_id)
    rotation = Rotation(datetime.now(UTC), timedelta(hours=1))
    chassis.keys.stored[key_id] = chassis.keys.stored[key_id].rotated(new.hash(HASH_KEY), rotation)
    for key in (old, new.text):
        assert (await chassis.get_run(metadata=bearer(key))).run.agent_id == "ann"


def check_limited(failure: Failure) -> None:
    assert (failure.code, failure.reason) == (CODE.RESOURCE_EXHAUSTED, "AUTH_RATE_LIMITED")
    retry = failure.details["RetryInfo"]
    assert isinstance(retry, error_details_pb2.RetryInfo)
    assert 50 < retry.retry_delay.seconds <= 60
    assert failure.trailers["grpc-retry-pushback-ms"] == str(retry.retry_delay.ToMilliseconds())


async def test_who_guesses_too_often_is_looked_at_no_more_for_a_while() -> None:
    async with running(types=("api_key",), max_failures_per_minute=2) as chassis:
        known, new = chassis.keys.issue("ann"), chassis.keys.issue("bob")
        assert (await chassis.get_run(metadata=bearer(known))).run.agent_id == "ann"
        for _ in range(20):  # ten times as many, because all who are on this machine count as one
            failure = await failed(chassis.get_run(metadata=bearer(PresentedKey.mint().text)))
            assert failure.reason == "CREDENTIALS_INVALID"
        for key in (PresentedKey.mint().text, new, "x"):
            check_limited(await failed(chassis.get_run(metadata=bearer(key))))
        check_limited(await failed(chassis.watch_run(bearer(new)).read()))
        assert (await chassis.get_run(metadata=bearer(known))).run.agent_id == "ann"
        assert (await failed(chassis.get_run())).reason == "CREDENTIALS_INVALID"


async def test_a_store_that_hangs_lets_nobody_in_and_keeps_nobody_waiting(chassis: Chassis) -> None:
    key = chassis.keys.issue("ann")
    chassis.keys.delay_s = 60.0
    try:
        async with asyncio.timeout(8):
            failure = await failed(chassis.get_run(metadata=bearer(key)))
    finally:
        chassis.keys.delay_s = 0.0
    assert (failure.code, failure.reason) == (CODE.UNAVAILABLE, "AUTH_UNAVAILABLE")
    assert (await chassis.get_run(metadata=bearer(key))).run.agent_id == "ann"
